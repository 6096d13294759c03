"""Which variables of a loop hold a time, or what is computed from one."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.scopes import assigned_values
from trainerd.analysis.syntax import dotted, walk

if TYPE_CHECKING:
    from trainerd.analysis.name_meanings import Names
    from trainerd.analysis.scopes import Scope

_CLOCKS: Final = frozenset(
    {
        "time.time", "time.perf_counter", "time.monotonic", "time.process_time", "time.time_ns",
        "time.perf_counter_ns", "time.monotonic_ns", "timeit.default_timer",
        "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.now", "datetime.utcnow",
        "datetime.datetime.today",
    }
)  # fmt: skip


def is_clock(node: ast.AST, names: Names) -> bool:
    """Tell whether an expression is a call that reads a clock."""
    return isinstance(node, ast.Call) and names.resolved(node.func) in _CLOCKS


class ClockValues:
    """The variables of a scope whose values come from the clock alone, apart from where they begin.

    Args:
        scope: The scope.
        names: Names of the script.
    """

    def __init__(self, scope: Scope, names: Names) -> None:
        self._names = names
        self._times: set[str] = set()
        assigned: dict[str, list[ast.expr]] = {}
        for name, value, _ in assigned_values(scope.nodes):
            if any(isinstance(node, ast.Name | ast.Call) for node in walk(value)):
                assigned.setdefault(name, []).append(value)
        size = -1
        while size != (size := len(self._times)):
            for name, values in assigned.items():
                if name not in self._times and all(
                    self.shows_in(value) or dotted(value) == name for value in values
                ):
                    self._times.add(name)

    def shows_in(self, expression: ast.AST) -> bool:
        """Tell whether an expression is computed from the clock, or from a variable that is."""
        return any(
            is_clock(node, self._names)
            or (dotted(node) in self._times and isinstance(node, ast.Name | ast.Attribute))
            for node in walk(expression)
        )

    def has(self, name: str) -> bool:
        """Tell whether a variable holds what comes from the clock."""
        return name in self._times
