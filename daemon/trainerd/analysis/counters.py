"""Counts of `enumerate` that decide something: they begin at 0 in every attempt."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.display import is_display_call, only_shows
from trainerd.analysis.finding import Finding
from trainerd.analysis.script import dotted, walk_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.parents import Parents
    from trainerd.analysis.script import Loop, Script

RULE: Final = "enumerate-count"


def deciding_counts(script: Script, parents: Parents) -> Iterator[Finding]:
    """Yield counts that stand in a condition or a computation, rather than in output alone."""
    for scope in script.scopes:
        for loop in scope.loops:
            name = _count(loop)
            if name is None:
                continue
            used = next(
                (
                    node
                    for node in walk_scope(loop.node.body)
                    if isinstance(node, ast.Name)
                    and node.id == name
                    and isinstance(node.ctx, ast.Load)
                    and _matters(node, parents)
                ),
                None,
            )
            if used is not None:
                yield _finding(name, used, loop)


def _count(loop: Loop) -> str | None:
    """Return the name of the count of a loop over ``enumerate(session.batches(…))``."""
    node = loop.node
    if not isinstance(node, ast.For | ast.AsyncFor) or not isinstance(node.target, ast.Tuple):
        return None
    first = node.target.elts[0]
    if not isinstance(first, ast.Name):
        return None
    for each in ast.walk(node.iter):
        if isinstance(each, ast.Call) and dotted(each.func) in {"enumerate", "count", "itertools.count"}:
            return first.id
    return None


def _matters(node: ast.AST, parents: Parents) -> bool:
    test = parents.test_with(node)
    if isinstance(test, ast.If):
        return not (only_shows(test.body) and only_shows(test.orelse))
    if test is not None:
        return True
    call = parents.call_with(node)
    if call is not None and is_display_call(call):
        return False
    return not _is_shown_only(node, parents)


def _is_shown_only(node: ast.AST, parents: Parents) -> bool:
    """Tell whether the value goes into a message."""
    return any(isinstance(each, ast.JoinedStr) for each in parents.around(node))


def _finding(name: str, node: ast.Name, loop: Loop) -> Finding:
    function = loop.sources[0].func
    assert isinstance(function, ast.Attribute)
    session = dotted(function.value) or "session"
    return Finding(
        node.lineno,
        node.col_offset + 1,
        RULE,
        name,
        f"{name} counts from 0 again in every attempt, and the run depends on it",
        f"for {name}, … in {session}.enumerate(loader), which counts over all attempts; "
        "accumulate=k and session.ends_step for gradient accumulation",
    )
