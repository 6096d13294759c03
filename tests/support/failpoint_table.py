"""The table of failpoints in `docs/formats.md`, made from the code.

`python -m tests.support.failpoint_table` writes it. The sources are parsed and not imported, so the table
takes in every module, those that need torch included, and costs nothing.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "formats.md"
BEGIN = "<!-- failpoints: made by `python -m tests.support.failpoint_table` -->"
END = "<!-- end of failpoints -->"


@dataclass(frozen=True)
class Declared:
    """One call of `declare`."""

    name: str
    leaves: str
    module: str


def declared_failpoints() -> list[Declared]:
    """Return every failpoint of the package, in the order of modules and of lines.

    A file without the word is not parsed: all of them take 2.5 s.
    """
    package = REPOSITORY / "daemon"
    return [
        found
        for path in sorted(package.rglob("*.py"))
        if "declare" in path.read_text()
        for found in _declared_in(path, ".".join(path.relative_to(package).with_suffix("").parts))
    ]


def _declared_in(path: Path, module: str) -> list[Declared]:
    tree = ast.parse(path.read_text())
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) == "declare"
    ]
    calls.sort(key=lambda call: call.lineno)
    constants = _text_constants(tree)
    return [Declared(*(_text(argument, constants) for argument in call.args), module) for call in calls]


def _text_constants(tree: ast.Module) -> dict[str, str]:
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }


def _text(argument: ast.expr, constants: dict[str, str]) -> str:
    """Return the value of a string, or of an f-string of the module's own text constants."""
    if isinstance(argument, ast.Constant):
        return argument.value
    if isinstance(argument, ast.Name):
        return constants[argument.id]
    if isinstance(argument, ast.FormattedValue):
        return _text(argument.value, constants)
    assert isinstance(argument, ast.JoinedStr), (
        "a failpoint is declared with text that can be read from the source"
    )
    return "".join(_text(value, constants) for value in argument.values)


def table() -> str:
    """Return the table as Markdown."""
    rows = [f"| `{one.name}` | {one.leaves} | `{one.module}` |" for one in declared_failpoints()]
    return "\n".join(["| failpoint | a crash there leaves | declared in |", "|---|---|---|", *rows])


def page_with(made: str) -> str:
    """Return the page with the table in its place."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with(table()))
