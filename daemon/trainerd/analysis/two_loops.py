"""Two training loops that are open at once: a session has one position."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.script_finding import ScriptFinding
from trainerd.analysis.syntax import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.loops import SessionLoop
    from trainerd.analysis.script import Script

RULE: Final = "two-training-loops"


def loops_open_at_once(script: Script) -> Iterator[ScriptFinding]:
    """Yield loops that draw from two calls of ``batches``, or that begin one within another."""
    for loop in script.loops:
        if loop.unit not in {"batch", "step"}:
            continue
        second = _second(script, loop)
        if second is not None:
            yield _finding(loop, second)


def _second(script: Script, loop: SessionLoop) -> ast.Call | None:
    """Return the call that begins a second training loop while one is open."""
    if len(loop.sources) > 1 and not _are_alternatives(loop):
        return loop.sources[1]
    for node in loop.nodes:
        for other in script.loops:
            if other.node is node and other.unit in {"batch", "step"}:
                return other.sources[0]
        if isinstance(node, ast.Call) and dotted(node.func) == "next" and node.args:
            for call in script.sources.sources(node.args[0], loop.scope):
                if call not in loop.sources and isinstance(loop.node, ast.For):
                    return call
    return None


def _are_alternatives(loop: SessionLoop) -> bool:
    """Tell whether a loop draws from one of several calls, as a variable that is set in two branches does."""
    assert not isinstance(loop.node, ast.While)
    name = dotted(loop.node.iter)
    if name is not None:
        return True
    return isinstance(loop.node.iter, ast.IfExp)


def _finding(loop: SessionLoop, second: ast.Call) -> ScriptFinding:
    loaders = [ast.unparse(call.args[0]) for call in (loop.sources[0], second) if call.args]
    return ScriptFinding.at(
        second,
        RULE,
        ast.unparse(second.func),
        why="two training loops are open at once, and a session has one position in the data",
        instead=f"for a, b in {loop.session}.batches({', '.join(dict.fromkeys(loaders))}), which draws from "
        "several loaders in step; train=False for a loop that does not train",
    )
