"""Two training loops that are open at once: a session has one position."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.finding import Finding
from trainerd.analysis.script import dotted, is_training, walk_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.script import Loop, Script

RULE: Final = "two-training-loops"


def loops_open_at_once(script: Script) -> Iterator[Finding]:
    """Yield loops that draw from two calls of ``batches``, or that begin one within another."""
    for scope in script.scopes:
        for loop in scope.loops:
            if loop.unit != "batch":
                continue
            if len(loop.sources) > 1:
                yield _finding(loop, loop.sources[1])
                continue
            inner = next(
                (
                    other
                    for other in scope.loops
                    if other is not loop and other.unit == "batch" and _holds(loop, other)
                ),
                None,
            )
            if inner is not None:
                yield _finding(loop, inner.sources[0])
                continue
            pulled = next(_pulled(script, loop), None)
            if pulled is not None:
                yield _finding(loop, pulled)


def _holds(outer: Loop, inner: Loop) -> bool:
    return any(node is inner.node for node in walk_scope(outer.node.body))


def _pulled(script: Script, loop: Loop) -> Iterator[ast.Call]:
    """Yield the sources of iterators on which the body calls `next`."""
    for node in walk_scope(loop.node.body):
        if isinstance(node, ast.Call) and dotted(node.func) == "next" and node.args:
            for call in script.session_loop_calls(node.args[0], loop.scope):
                if is_training(call) and call not in loop.sources and isinstance(loop.node, ast.For):
                    yield call


def _finding(loop: Loop, second: ast.Call) -> Finding:
    function = second.func
    assert isinstance(function, ast.Attribute)
    session = dotted(function.value) or "session"
    loaders = [ast.unparse(call.args[0]) for call in (loop.sources[0], second) if call.args]
    return Finding(
        second.lineno,
        second.col_offset + 1,
        RULE,
        ast.unparse(function),
        "two training loops are open at once, and a session has one position in the data",
        f"for a, b in {session}.batches({', '.join(dict.fromkeys(loaders))}), which draws from several loaders in step; "
        "train=False for a loop that does not train",
    )
