"""What a script gives to ``track`` or to a `Checkpointer`, and which names are values of the session."""

from __future__ import annotations

import ast
import builtins
from typing import TYPE_CHECKING, Final

from trainerd.analysis.syntax import Function, chains, dotted, passed, prefixes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.name_meanings import Names
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.sessions import Sessions

_BOX_CALLS: Final = frozenset({"value", "variables"})
_TRACK_ALL: Final = frozenset(
    {"trainerd.integrations.transformers.protect", "trainerd.integrations.lightning.TrainerdCallback"}
)
"""Calls that track what trains, whatever the script tracks besides."""
_PASSES_MAX: Final = 5
_OWN: Final = ":self"
"""Stands behind the name of a class for the ``self`` of its methods."""


class Tracking:
    """The state of the run, as the script declares it.

    Args:
        names: The names of the script.
        sessions: Its sessions.
        scopes: Its scopes.

    Attributes:
        calls: Calls of ``track``, and those that make a `Checkpointer`.
        is_unknown: Whether objects are tracked that cannot be told here, such as ``track(**objects)``
            or those of a framework's trainer.
        is_passed_on: Whether a function that is not in the script gets a session, which it may track with.
    """

    def __init__(self, names: Names, sessions: Sessions, scopes: list[Scope]) -> None:
        self._sessions = sessions
        self.is_unknown = self.is_passed_on = False
        self.calls: list[ast.Call] = []
        self._names = names
        self._tracked: set[str] = set()
        for call, scope in names.calls:
            if isinstance(call.func, ast.Attribute) and call.func.attr == "track":
                self.calls.append(call)
                self._note_keywords(call, scope)
            elif call in sessions.checkpointer_calls:
                self.calls.append(call)
                self._note_checkpointer(call, scope)
            elif names.resolved(call.func) in _TRACK_ALL:
                self.is_unknown = True
            elif self._leaves_script(call, scope):
                self._note_passed_on(call, scope)
        self._boxes = {
            self._own(name, scope)
            for scope in scopes
            for name, values in scope.values.items()
            if any(map(self._is_box, values))
        }
        self._follow([pair for call, scope in names.calls for pair in self._passed(call, scope)])

    def keeps(self, name: str, scope: Scope) -> bool:
        """Tell whether the session restores what a name or a chain of a scope stands for."""
        own = self._own(name, scope)
        return any(prefix in self._tracked or prefix in self._boxes for prefix in prefixes(own)) or any(
            self._sessions.is_session(_as_node(prefix)) for prefix in prefixes(name)
        )

    def tracked_in(self, scope: Scope) -> frozenset[str]:
        """All names and chains that are tracked, as a scope would write them."""
        here = [each for each in self._tracked if _OWN not in each]
        around = _method_around(scope)
        if around is not None:
            own = f"{self._class_name(around)}{_OWN}"
            here += [
                f"{around.self_name}{each.removeprefix(own)}"
                for each in self._tracked
                if each.startswith(own)
            ]
        return frozenset(here)

    def tracks_part_of(self, name: str, scope: Scope) -> bool:
        """Tell whether something below an object is tracked, such as ``model.module``."""
        return any(each.startswith(f"{self._own(name, scope)}.") for each in self._tracked)

    def _own(self, name: str, scope: Scope) -> str:
        """Return a chain with its ``self`` told apart from that of other classes."""
        first, dot, rest = name.partition(".")
        around = _method_around(scope)
        if around is None or first != around.self_name:
            return name
        return f"{self._class_name(around)}{_OWN}{dot}{rest}"

    def _class_name(self, method: Scope) -> str:
        """Return the name of a method's class, or of the first class of the script that it derives from."""
        owner, seen = method.owner, set()
        while owner is not None and owner.name not in seen:
            seen.add(owner.name)
            bases = (self._names.classes.get(dotted(base) or "") for base in owner.bases)
            owner = next((base for base in bases if base is not None), None) or owner
        return owner.name if owner is not None else ""

    def _follow(self, pairs: list[tuple[str, str]]) -> None:
        """Count parameters as tracked whose arguments are, and arguments whose parameters are.

        Args:
            pairs: Parameters of functions of the script, with the names or chains that are passed to them.
        """
        for kept in (self._tracked, self._boxes):
            for _ in range(_PASSES_MAX):  # a function may pass on what it was passed
                more = {new for pair in dict.fromkeys(pairs) for new in _renamed(kept, *pair)}
                if more <= kept:
                    break
                kept.update(more)

    def _passed(self, call: ast.Call, scope: Scope) -> Iterator[tuple[str, str]]:
        found = self._names.called(call, scope)
        if found is None:
            return
        function, receiver = found
        assert isinstance(function.node, Function)
        for parameter, argument in passed(call, function.node, is_bound=receiver is not None):
            if (name := dotted(argument)) is not None and name != parameter:
                yield parameter, self._own(name, scope)
        if receiver is not None and function.self_name is not None:
            own, outside = self._own(function.self_name, function), self._own(receiver, scope)
            if outside.partition(".")[0] != own:  # of self.x.method() the self is another object
                yield own, outside

    def _leaves_script(self, call: ast.Call, scope: Scope) -> bool:
        name = dotted(call.func)
        is_ours = name in self._names.classes or hasattr(builtins, name or "")
        return not is_ours and self._names.called(call, scope) is None

    def _note_passed_on(self, call: ast.Call, scope: Scope) -> None:
        """Count what goes into a function of another file together with a session as tracked there."""
        arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
        if any(map(self._sessions.is_session, arguments)):
            self.is_passed_on = True
            self._note_chains(arguments, scope)

    def _note_chains(self, values: list[ast.expr], scope: Scope) -> None:
        self._tracked.update(self._own(name, scope) for value in values for name in chains(value))

    def _note_keywords(self, call: ast.Call, scope: Scope) -> None:
        for keyword in call.keywords:
            if keyword.arg is None:
                self._note_objects(keyword.value, scope)
            else:
                self._note_chains([keyword.value], scope)

    def _note_checkpointer(self, call: ast.Call, scope: Scope) -> None:
        named = [keyword.value for keyword in call.keywords if keyword.arg == "objects"]
        for objects in named or call.args[1:2]:
            self._note_objects(objects, scope)

    def _note_objects(self, objects: ast.expr, scope: Scope) -> None:
        """Note the values of a dictionary, which may be in a variable."""
        name = dotted(objects)
        for value in [objects] if name is None else self._names.values(name, scope) or [objects]:
            if isinstance(value, ast.Dict):
                entries: list[ast.expr] = value.values
            elif isinstance(value, ast.Call) and dotted(value.func) == "dict" and not value.args:
                entries = [keyword.value for keyword in value.keywords]
            else:
                self.is_unknown = True
                entries = [value]
            self._note_chains(entries, scope)

    def _is_box(self, value: ast.expr) -> bool:
        """Tell whether a value is `session.value(…)`, its ``.value``, or `session.variables(…)`."""
        if isinstance(value, ast.Attribute) and value.attr == "value":
            value = value.value
        return (
            isinstance(value, ast.Call)
            and isinstance(value.func, ast.Attribute)
            and value.func.attr in _BOX_CALLS
            and self._sessions.is_session(value.func.value)
        )


def _method_around(scope: Scope | None) -> Scope | None:
    """Return the method that a scope is, or that a function within it is defined in."""
    while scope is not None and scope.self_name is None:
        scope = scope.parent
    return scope


def _renamed(kept: set[str], parameter: str, name: str) -> Iterator[str]:
    """Yield the other names of what is kept under one of two names for the same object."""
    for each in kept:
        if each == parameter or each.startswith(f"{parameter}."):
            yield name + each[len(parameter) :]
        if each == name or each.startswith(f"{name}."):
            yield parameter + each[len(name) :]


def _as_node(name: str) -> ast.AST:
    first, *rest = name.split(".")
    node: ast.expr = ast.Name(first)
    for part in rest:
        node = ast.Attribute(node, part)
    return node
