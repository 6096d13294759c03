"""Values gathered over a training loop in one expression: a resume has only those that were left."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.loops import is_training, session_of
from trainerd.analysis.script_finding import ScriptFinding
from trainerd.analysis.syntax import Comprehension, dotted, last_part, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script

RULE: Final = "gathered-over-loop"
_REDUCTIONS: Final = frozenset(
    {"sum", "list", "tuple", "max", "min", "reduce", "mean", "fmean", "fsum", "Counter"}
)


def gathered_values(script: Script) -> Iterator[ScriptFinding]:
    """Yield comprehensions and reductions over training loops whose result is used."""
    for scope in script.scopes:
        inside: set[ast.AST] = set()
        for node in scope.nodes:
            if node in inside or not _gathers(script, node, scope):
                continue
            inside |= set(walk(node))
            around = next(script.parents.around(node))
            if isinstance(around, ast.Expr) or _is_iterated(around, node):
                continue
            assert isinstance(node, ast.expr)
            calls = [call for call in _sources(script, node, scope) if is_training(call)]
            session = session_of(calls[0])
            yield ScriptFinding.at(
                node,
                RULE,
                _name(around),
                why="the values of all batches are gathered in one expression: a resume in the middle has "
                "only those that are left",
                instead=f"a for loop, and carry = {session}.variables(…) for what it gathers",
                opened_by=calls,
            )


def _gathers(script: Script, node: ast.AST, scope: Scope) -> bool:
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp):
        return any(map(is_training, _sources(script, node, scope)))
    if isinstance(node, ast.Call) and last_part(dotted(node.func) or "") in _REDUCTIONS:
        return any(
            isinstance(argument, Comprehension)
            or (isinstance(argument, ast.Call) and dotted(argument.func) == "map")
            for argument in node.args
        ) and any(map(is_training, _sources(script, node, scope)))
    return False


def _sources(script: Script, node: ast.AST, scope: Scope) -> tuple[ast.Call, ...]:
    if isinstance(node, Comprehension):
        return script.sources.sources(node.generators[0].iter, scope)
    return script.sources.sources(node, scope)


def _is_iterated(around: ast.AST, node: ast.AST) -> bool:
    return isinstance(around, ast.For | ast.AsyncFor) and around.iter is node


def _name(around: ast.AST) -> str:
    target = around.targets[0] if isinstance(around, ast.Assign) else None
    return (dotted(target) if target is not None else None) or "comprehension"
