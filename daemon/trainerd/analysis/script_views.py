"""What the rules ask of loops and scopes, computed once for each."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

from trainerd.analysis.clock_values import ClockValues
from trainerd.analysis.display import Display
from trainerd.analysis.scopes import assigned_values
from trainerd.analysis.syntax import dotted, last_part, prefixes

if TYPE_CHECKING:
    from trainerd.analysis.loops import SessionLoop
    from trainerd.analysis.reads import Reads
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script
    from trainerd.analysis.syntax import Place

_METER: Final = re.compile(
    r"(Meter|Metric|Average|Accuracy|Precision|Recall|F1|AUROC|Tracker|History|Buffer|Queue|Memory|Recorder)"
)
_OF_WEIGHTS: Final = re.compile(r"(Weight|Model|Parameter|Polyak|Moving|EMA)")


class Views:
    """Views of one script.

    Args:
        script: The script.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._reads: dict[SessionLoop, Reads] = {}
        self._clocks: dict[Scope, ClockValues] = {}
        self._displays: dict[Scope, Display] = {}

    def reads(self, loop: SessionLoop) -> Reads:
        """Return what the body of a loop reads and assigns."""
        if loop not in self._reads:
            self._reads[loop] = self._script.effects.reads(loop.node.body, loop.scope, loop.targets)
        return self._reads[loop]

    def fresh(self, loop: SessionLoop) -> frozenset[str]:
        """Return the names that the loop assigns."""
        return frozenset(self.reads(loop).stored) | loop.targets

    def clock(self, scope: Scope) -> ClockValues:
        """Return the variables of a scope that hold times."""
        if scope not in self._clocks:
            self._clocks[scope] = ClockValues(scope, self._script.names)
        return self._clocks[scope]

    def display(self, scope: Scope) -> Display:
        """Return what only shows something in a scope."""
        if scope not in self._displays:
            self._displays[scope] = Display(scope, self._script.scopes, self._script.parents)
        return self._displays[scope]

    def holder(self, name: str, node: Place, loop: SessionLoop) -> str | None:
        """Return the object whose own methods make a change, other than the one whose method has the loop.

        Args:
            name: The chain that is changed, as the loop would name it.
            node: Where it is changed.
            loop: The loop.
        """
        owner = self._class_around(node)
        for prefix in prefixes(name)[:-1]:
            if prefix == loop.scope.self_name:
                continue
            made = self._script.names.class_of(prefix, loop.scope)
            if made is not None and (
                made is owner
                or self._is_below(made, owner)
                or (node in loop.node_set and not self._sets(loop, name))
            ):
                return prefix
        return None

    @staticmethod
    def _sets(loop: SessionLoop, name: str) -> bool:
        """Tell whether the loop itself assigns a chain or changes it in place."""
        return any(found == name for found, _, _ in assigned_values(loop.nodes)) or any(
            isinstance(node, ast.Attribute) and dotted(node) == name and not isinstance(node.ctx, ast.Load)
            for node in loop.nodes
        )

    def _class_around(self, node: Place) -> ast.ClassDef | None:
        return next(
            (each for each in self._script.parents.around(node) if isinstance(each, ast.ClassDef)), None
        )

    def _is_below(self, made: ast.ClassDef, owner: ast.ClassDef | None) -> bool:
        return owner is not None and any(dotted(base) == owner.name for base in made.bases)

    def is_meter(self, name: str, scope: Scope) -> bool:
        """Tell whether a variable is a meter, a history or a buffer, by the name of its class."""
        return any(
            isinstance(value, ast.Call)
            and (kind := last_part(dotted(value.func) or ""))[:1].isupper()
            and _METER.search(kind)
            and not _OF_WEIGHTS.search(kind)
            for value in self._script.names.values(name, scope)
        )
