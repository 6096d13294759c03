"""Where a session is opened: before the first statement that makes something of the run."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.adoption.refusal import refused
from trainerd.analysis.syntax import dotted, last_part, walk, walk_scope

if TYPE_CHECKING:
    from trainerd.analysis.script import Script

_INERT_ROOTS: Final = frozenset(
    {
        "argparse",
        "os",
        "sys",
        "pathlib",
        "logging",
        "warnings",
        "json",
        "datetime",
        "time",
        "re",
        "math",
        "typing",
    }
)
_INERT: Final = frozenset(
    {
        "add_argument", "parse_args", "parse_known_args", "ArgumentParser", "device", "is_available", "Path",
        "getLogger", "basicConfig", "int", "float", "str", "bool", "range", "len", "list", "dict",
        "tuple", "set",
        "set_defaults", "add_argument_group", "use_deterministic_algorithms", "set_num_threads",
        "format", "join",
        "print", "vars", "get", "append", "filterwarnings", "simplefilter", "SimpleNamespace",
        "set_start_method",
        "defaultdict", "is_built",
    }
)  # fmt: skip
_SEEDS: Final = frozenset(
    {"manual_seed", "seed", "seed_everything", "set_seed", "seed_all", "manual_seed_all"}
)


@dataclass(frozen=True)
class SessionPlace:
    """The block in which a session is opened.

    Attributes:
        block: Its statements.
        index: Number of the first statement that makes something.
        seed: Text of the seed, None for the default.
    """

    block: list[ast.stmt]
    index: int
    seed: str | None


def session_place(script: Script, inner: ast.AST) -> SessionPlace:
    """Return where to open the session.

    Args:
        script: The script.
        inner: The training loop, or the call of the function that has it, at the level of the module.

    Raises:
        AdoptionRefusedError: What the module makes before is neither seeded nor within.
    """
    block = script.tree.body
    statement = _statement_with(block, inner)
    if isinstance(statement, ast.If) and _is_main_guard(statement):
        for before in block[: block.index(statement)]:
            if not _is_inert(script, before, 0) and not _seeds_in(script, block[: block.index(statement)]):
                raise refused(
                    before,
                    "made before the session is opened, without a seed: attempts begin in different ways",
                    "torch.manual_seed(0) before it, or move it into the function that trains",
                )
        block = statement.body
        if block[0].lineno == statement.lineno:
            raise refused(
                statement,
                "the guard shares its line with what it guards",
                f"{ast.unparse(block[0])[:40]} on a line of its own",
            )
        statement = _statement_with(block, inner)
    end = block.index(statement)
    index = next((i for i, each in enumerate(block[:end]) if not _is_inert(script, each, 0)), end)
    return SessionPlace(block, index, _seed(script, block[:index]))


def _statement_with(block: list[ast.stmt], inner: ast.AST) -> ast.stmt:
    return next(each for each in block if inner in set(walk_scope([each])))


def _is_main_guard(node: ast.If) -> bool:
    return (
        "__name__" in {each.id for each in walk(node.test) if isinstance(each, ast.Name)} and not node.orelse
    )


def _is_inert(script: Script, node: ast.stmt, depth: int) -> bool:
    """Tell whether a statement makes nothing of the run, and draws no random numbers."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
        return True
    return all(
        _is_inert_call(script, each, depth) for each in walk_scope([node]) if isinstance(each, ast.Call)
    ) and not isinstance(node, ast.For | ast.While | ast.With | ast.Delete)


def _is_inert_call(script: Script, call: ast.Call, depth: int) -> bool:
    name = script.names.resolved(call.func)
    if not name:
        return isinstance(call.func, ast.Attribute) and call.func.attr in _INERT
    if name.partition(".")[0] in _INERT_ROOTS or last_part(name) in _INERT:
        return True
    function = script.names.functions.get(name)
    return (
        function is not None
        and depth < 3
        and all(_is_inert(script, each, depth + 1) for each in function.body)
    )


def _seeds_in(script: Script, statements: list[ast.stmt]) -> list[ast.Call]:
    return [
        each
        for each in walk_scope(statements)
        if isinstance(each, ast.Call)
        and last_part(script.names.resolved(each.func)) in _SEEDS
        and len(each.args) == 1
    ]


def _seed(script: Script, before: list[ast.stmt]) -> str | None:
    """Return the seed that a script gives to torch, where the session can be given the same."""
    for call, _ in script.names.calls:
        if script.names.resolved(call.func) not in {"torch.manual_seed", "torch.random.manual_seed"}:
            continue
        argument = call.args[0] if call.args else None
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int) and argument.value >= 0:
            return str(argument.value)
        root = (dotted(argument) or "").partition(".")[0] if argument is not None else ""
        known = {each.id for each in walk_scope(before) if isinstance(each, ast.Name)} | {
            each.id for each in walk_scope(_inert_start(script)) if isinstance(each, ast.Name)
        }
        at_module = any(call in set(walk_scope([each])) for each in script.tree.body)
        if root and root in known and at_module:
            return ast.unparse(argument) if argument is not None else None
    return None


def _inert_start(script: Script) -> list[ast.stmt]:
    """Return the statements of the module before the first that makes something."""
    found: list[ast.stmt] = []
    for each in script.tree.body:
        if not _is_inert(script, each, 0):
            break
        found.append(each)
    return found
