"""Which objects that a script makes are tracked, whatever their names are where they are made."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.kinds import SCHEDULER, kind_of
from trainerd.analysis.syntax import dotted, last_part

if TYPE_CHECKING:
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script

_DEPTH_MAX: Final = 10


class TrackedCoverage:
    """The calls whose objects are part of the state of the run.

    An object is covered if it is tracked, or if it is part of one that is: a model in a wrapper, a scheduler
    in a `SequentialLR`. An optimizer does not cover its model, nor a scheduler its optimizer, nor a copy its
    original.

    Args:
        script: The script.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._covered: set[ast.AST] = set()
        self._seen: set[tuple[str, Scope]] = set()
        for scope in script.scopes:
            for name in script.tracking.tracked_in(scope):
                self._cover_name(name, scope, 0)
        self._assigned = {
            value.value if isinstance(value, ast.Subscript) else value
            for scope in script.scopes
            for values in scope.values.values()
            for value in values
        }
        self._callers: dict[str, list[ast.Call]] = {}
        for call, _ in script.names.calls:
            self._callers.setdefault(last_part(dotted(call.func) or ""), []).append(call)
        for scope in script.scopes:
            self._cover_returned(scope)

    def has(self, value: ast.AST) -> bool:
        """Tell whether the object that an expression makes is covered."""
        return value in self._covered

    def _cover_name(self, name: str, scope: Scope, depth: int) -> None:
        if (name, scope) in self._seen:
            return
        self._seen.add((name, scope))
        for value, place in self._script.names.origins(name, scope):
            self._cover(value, place, depth)

    def _cover(self, value: ast.AST, scope: Scope, depth: int) -> None:
        if value in self._covered or depth > _DEPTH_MAX:
            return
        self._covered.add(value)
        name = dotted(value)
        if name is not None:
            self._cover_name(name, scope, depth + 1)
        elif isinstance(value, ast.Call):
            for part in self._parts(value):
                self._cover(part, scope, depth + 1)
        elif isinstance(value, ast.Subscript | ast.Starred | ast.Attribute):
            self._cover(value.value, scope, depth + 1)
        elif isinstance(value, ast.List | ast.Tuple):
            for element in value.elts:
                self._cover(element, scope, depth + 1)
        elif isinstance(value, ast.IfExp):
            self._cover(value.body, scope, depth + 1)
            self._cover(value.orelse, scope, depth + 1)

    def _parts(self, call: ast.Call) -> list[ast.expr]:
        """Return what is restored with the object that a call makes."""
        kind = kind_of(self._script.names.resolved(call.func))
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        if kind == SCHEDULER:
            return [each for each in given if isinstance(each, ast.List | ast.Tuple)]
        if kind is not None or last_part(dotted(call.func) or "") in {"deepcopy", "copy"}:
            return []
        return [*given, *([call.func.value] if isinstance(call.func, ast.Attribute) else [])]

    def _cover_returned(self, scope: Scope) -> None:
        """Count what a function returns as covered where its callers may track it under no name."""
        name = getattr(scope.node, "name", "")
        callers = self._callers.get(name, [])
        if (
            callers
            and all(call in self._assigned for call in callers)
            and name in self._script.names.functions
        ):
            return
        for node in scope.nodes:
            if isinstance(node, ast.Return | ast.Yield) and node.value is not None:
                self._cover(node.value, scope, 0)
