"""How code of a script is reached: which loops train, and by which calls a function runs."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.adoption.refusal import refused
from trainerd.analysis.syntax import Function, walk, walk_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script
    from trainerd.analysis.syntax import LoopNode

_DEPTH_MAX: Final = 10


@dataclass(frozen=True)
class PlacedLoop:
    """A loop, with the scope that it stands in."""

    node: LoopNode
    scope: Scope

    @property
    def line(self) -> int:
        """Its line."""
        return self.node.lineno


class Reach:
    """Which code runs which, in one script.

    Args:
        script: The script.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._run_by: dict[Scope, frozenset[Scope]] = {}

    def code(self, statements: list[ast.stmt], scope: Scope) -> Iterator[tuple[ast.AST, Scope]]:
        """Yield the nodes of statements, and those of all functions of the script that they call."""
        seen: set[Scope] = set()
        waiting: list[tuple[list[ast.AST], Scope]] = [(list(walk_scope(statements)), scope)]
        while waiting:
            nodes, place = waiting.pop()
            for node in nodes:
                yield node, place
                called = self._script.names.called(node, place) if isinstance(node, ast.Call) else None
                if called is not None and called[0] not in seen:
                    seen.add(called[0])
                    waiting.append((called[0].nodes, called[0]))

    def trains(self, statements: list[ast.stmt], scope: Scope) -> bool:
        """Tell whether code computes gradients."""
        return any(is_backward(node) for node, _ in self.code(statements, scope))

    def training_loops(self) -> list[PlacedLoop]:
        """Return all loops whose body computes gradients."""
        return [
            PlacedLoop(node, scope)
            for scope in self._script.scopes
            for node in scope.nodes
            if isinstance(node, ast.For | ast.AsyncFor | ast.While) and self.trains(node.body, scope)
        ]

    def within(self, loop: PlacedLoop, others: list[PlacedLoop]) -> list[PlacedLoop]:
        """Return those loops that run within another of them."""
        inside = {node for node, _ in self.code(loop.node.body, loop.scope)}
        return [other for other in others if other.node in inside]

    def calls_to(self, target: Scope, start: Scope) -> list[tuple[ast.Call, Scope]]:
        """Return the calls by which a scope reaches another: each with the scope that it stands in.

        Raises:
            AdoptionRefusedError: A function on the way is called more than once, from elsewhere, in another
                way than by its name, or by a loop of its own; or has a form in which it cannot be given more.
        """
        found: list[tuple[ast.Call, Scope]] = []
        while target is not start:
            self._check_function(target)
            assert isinstance(target.node, Function)
            name = target.node.name
            calls = [
                (call, scope)
                for call, scope in self._script.names.calls
                if (called := self._script.names.called(call, scope)) is not None and called[0] is target
            ]
            named = [
                each for each in walk(self._script.tree) if isinstance(each, ast.Name) and each.id == name
            ]
            if not calls:
                raise refused(target.node, f"{name}() trains and is not called in this file")
            if len(calls) > 1 or len(named) > 1:
                raise refused(
                    target.node,
                    f"{name}() trains and is used in {max(len(calls), len(named))} places of this file",
                )
            found.append(calls[0])
            target = calls[0][1]
            if len(found) > _DEPTH_MAX:
                raise refused(calls[0][0], f"{name}() calls itself")
        return found[::-1]

    @staticmethod
    def _check_function(scope: Scope) -> None:
        node = scope.node
        if not isinstance(node, Function):
            raise refused(1, "the code that trains does not run from the top of this file")
        if scope.owner is not None:
            raise refused(
                node,
                f"the training loop is in a method of the class {scope.owner.name}",
                "the integrations of trainerd, or docs/training-api.md by hand",
            )
        if isinstance(node, ast.AsyncFunctionDef):
            raise refused(node, f"{node.name}() is asynchronous")
        if node.decorator_list:
            raise refused(node, f"{node.name}() has a decorator: what calls it is not seen here")
        if any(isinstance(each, ast.Yield | ast.YieldFrom) for each in scope.nodes):
            raise refused(node, f"{node.name}() is a generator")


def is_backward(node: ast.AST) -> bool:
    """Tell whether a node is a call of ``backward``."""
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "backward"
    )
