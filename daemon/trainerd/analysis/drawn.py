"""Whether a training loop draws from a generator, itself or in a function of the script that it calls."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.syntax import dotted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trainerd.analysis.loops import SessionLoop
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script

_CALLED_MAX: Final = 200
"""So many functions are looked into for one loop."""


def is_drawn_in_a_loop(script: Script, scope: Scope, name: str, made: ast.Call) -> bool:
    """Tell whether a training loop uses a generator that was made outside of it.

    Args:
        script: The script.
        scope: Where the generator is made.
        name: What it is called there.
        made: The call that makes it.
    """
    return any(
        loop.unit != "epoch"
        and made not in loop.node_set
        and (_names(loop.nodes, name) or _is_drawn_below(script, loop, scope, name))
        for loop in script.loops
    )


def _is_drawn_below(script: Script, loop: SessionLoop, scope: Scope, name: str) -> bool:
    called = _called(script, loop)
    if scope in called:  # a new one with each call
        return False
    return any(_is_the_same(each, scope, name) and _names(each.nodes, name) for each in called)


def _is_the_same(function: Scope, scope: Scope, name: str) -> bool:
    """Tell whether a name means in a function what it means where the generator is made."""
    first = name.partition(".")[0]
    if first == scope.self_name:
        return function.owner is scope.owner and function.self_name == first
    return function.holder(first) is scope.holder(first)


def _called(script: Script, loop: SessionLoop) -> set[Scope]:
    """Return the functions of the script that the body of a loop calls, and those that they call."""
    found: set[Scope] = set()
    waiting: list[tuple[Iterable[ast.AST], Scope]] = [(loop.nodes, loop.scope)]
    while waiting and len(found) < _CALLED_MAX:
        nodes, place = waiting.pop()
        for node in nodes:
            function = script.names.called(node, place) if isinstance(node, ast.Call) else None
            if function is not None and function[0] not in found:
                found.add(function[0])
                waiting.append((function[0].nodes, function[0]))
    return found


def _names(nodes: Iterable[ast.AST], name: str) -> bool:
    return any(isinstance(node, ast.Name | ast.Attribute) and dotted(node) == name for node in nodes)
