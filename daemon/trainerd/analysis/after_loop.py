"""Variables of a loop that are read after it: unbound, or left from elsewhere, where a resume skips the loop."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.assignments import Reads, target_names
from trainerd.analysis.carried import is_kept
from trainerd.analysis.finding import Finding
from trainerd.analysis.script import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.parents import Parents
    from trainerd.analysis.script import Loop, Script

RULE: Final = "read-after-loop"


def read_after_loops(
    script: Script, parents: Parents, known: set[tuple[ast.AST, str]]
) -> Iterator[tuple[tuple[ast.AST, str], Finding]]:
    """Yield what is read after a loop that assigned it: its scope and name, and the finding.

    Args:
        script: The script.
        parents: What is part of what.
        known: Variables, with their scope, that other rules have named.
    """
    for scope in script.scopes:
        seen: set[str] = set()
        for loop in reversed(scope.loops):
            stored = Reads.of(loop.node.body, target_names(loop.node)).stored | target_names(loop.node)
            for name, node in _first_reads(loop, parents).items():
                if name not in stored or name in seen or (scope.node, name) in known or is_kept(name, script):
                    continue
                seen.add(name)
                yield (scope.node, name), _finding(name, node, loop)


def _first_reads(loop: Loop, parents: Parents) -> dict[str, ast.AST]:
    """Return the first reads after the loop, of names that nothing assigns in between."""
    found: dict[str, ast.AST] = {}
    assigned: set[str] = set()
    child: ast.AST = loop.node
    for around in parents.around(loop.node):
        rest = _statements_after(around, child)
        reads = Reads.of(rest, assigned)
        for name, node in reads.first.items():
            found.setdefault(name, node)
        assigned |= _surely_assigned(rest)
        if isinstance(around, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            break
        if isinstance(around, ast.For | ast.AsyncFor | ast.While) and any(
            other.node is around for other in loop.scope.loops
        ):
            break  # what the next iteration of that loop reads is its own matter
        child = around
    return found


def _statements_after(around: ast.AST, child: ast.AST) -> list[ast.stmt]:
    rest: list[ast.stmt] = []
    for name in ("body", "orelse", "handlers", "finalbody"):
        block = getattr(around, name, None)
        if isinstance(block, list) and child in block:
            rest += block[block.index(child) + 1 :]
            if isinstance(around, ast.Try | ast.TryStar) and name != "finalbody":
                rest += around.finalbody
            elif isinstance(around, ast.For | ast.AsyncFor | ast.While) and name == "body":
                rest += around.orelse
    return [statement for statement in rest if isinstance(statement, ast.stmt)]


def _surely_assigned(statements: list[ast.stmt]) -> set[str]:
    return {
        each.id
        for statement in statements
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        for each in ast.walk(target)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }


def _finding(name: str, node: ast.AST, loop: Loop) -> Finding:
    function = loop.sources[0].func
    assert isinstance(function, ast.Attribute)
    session = dotted(function.value) or "session"
    if loop.unit == "epoch":
        how = f'{name} = {session}.value("{name}", …), set in the loop through {name}.value'
    else:
        how = f"carry = {session}.variables({name}=…) before the loop, and carry.{name} in its place"
    return Finding(
        node.lineno,  # type: ignore[attr-defined]
        node.col_offset + 1,  # type: ignore[attr-defined]
        RULE,
        name,
        f"{name} is assigned in the loop of line {loop.node.lineno} and read after it: a resume after the loop skips "
        f"it, and {name} is unbound or has another value",
        how,
    )
