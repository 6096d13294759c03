"""Objects that the loaders of training loops consist of: a session keeps what the script changes in them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.syntax import dotted, last_part, prefixes

if TYPE_CHECKING:
    from trainerd.analysis.loops import SessionLoop
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script

_LOADERS: Final = frozenset({"DataLoader", "exact"})
_ORDERS: Final = frozenset({"sampler", "batch_sampler"})
_DEPTH_MAX: Final = 6


class Loading:
    """The loaders of a script's training loops, with their datasets, samplers and collate functions.

    Args:
        script: The script.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._made: set[ast.expr] = set()
        self._given: list[tuple[ast.Call, str, Scope]] = []
        for loop in script.loops:
            for call in loop.sources:
                for loader in call.args:
                    self._take(loader, loop.scope, 0, is_part=False)

    def keeps(self, name: str, scope: Scope) -> bool:
        """Tell whether a chain is an attribute of one of them."""
        return any(
            not self._made.isdisjoint(self._script.names.values(prefix, scope))
            for prefix in prefixes(name)[:-1]
        )

    def keeps_order(self, name: str, loop: SessionLoop) -> bool:
        """Tell whether a session keeps the order of a list that a loop shuffles.

        It does if the list is a sampler, or part of a dataset or sampler, that is made outside of the loop.
        """
        first = name.partition(".")[0]
        return any(
            given == name and scope.holder(first) is loop.scope.holder(first) and made not in loop.node_set
            for made, given, scope in self._given
        )

    def _note_given(self, call: ast.Call, argument: ast.expr, scope: Scope) -> None:
        if (name := dotted(argument)) is not None:
            self._given.append((call, name, scope))

    def _take(self, expression: ast.expr, scope: Scope, depth: int, *, is_part: bool) -> None:
        """Take in what an expression stands for, if it is a loader or a part of one."""
        if depth > _DEPTH_MAX or expression in self._made:
            return
        name = dotted(expression)
        if name is not None:
            for value, place in self._script.names.origins(name, scope):
                self._take(value, place, depth + 1, is_part=is_part)
        elif isinstance(expression, ast.Call):
            is_loader = last_part(dotted(expression.func) or "") in _LOADERS
            if not (is_loader or is_part) or self._is_iterable(expression):
                return
            self._made.add(expression)
            named = [(keyword.arg or "", keyword.value) for keyword in expression.keywords]
            for word, part in (*(("", each) for each in expression.args), *named):
                if not is_loader or word in _ORDERS:
                    self._note_given(expression, part, scope)
                self._take(part, scope, depth + 1, is_part=True)

    def _is_iterable(self, call: ast.Call) -> bool:
        """Tell whether a call makes an iterable dataset, most of whose attributes are not kept."""
        made = self._script.names.classes.get(dotted(call.func) or "")
        return made is not None and any(
            last_part(dotted(base) or "") == "IterableDataset" for base in made.bases
        )
