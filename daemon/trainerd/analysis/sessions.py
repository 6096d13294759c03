"""Which names of a script are sessions and checkpointers, and where they are opened.

A name counts as a session if it is bound to one, is passed one by a call in the same file, is annotated as
one, or contains the word "session".
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.syntax import dotted, last_part, walk

if TYPE_CHECKING:
    from collections.abc import Collection

    from trainerd.analysis.name_meanings import Names
    from trainerd.analysis.scopes import Scope

_OPENERS: Final = frozenset({"trainerd.session", "trainerd.training.session.session"})
_SESSIONS: Final = frozenset({"trainerd.Session", "trainerd.training.session.Session"})
_CHECKPOINTERS: Final = frozenset({"trainerd.Checkpointer", "trainerd.training.checkpointer.Checkpointer"})
_ENTERS: Final = frozenset({"enter_context", "enter_async_context", "__enter__", "open"})


class Sessions:
    """The sessions and checkpointers of a script.

    Args:
        tree: The script.
        names: Its names.
        scopes: Its scopes.
        known: Names of sessions that another file has passed it.

    Attributes:
        calls: Calls that open a session.
        checkpointer_calls: Calls that make a `Checkpointer`.
    """

    def __init__(
        self, tree: ast.Module, names: Names, scopes: list[Scope], known: Collection[str] = ()
    ) -> None:
        self._names = names
        calls = [node for node in walk(tree) if isinstance(node, ast.Call)]
        self.calls = [call for call in calls if names.resolved(call.func) in _OPENERS]
        self.checkpointer_calls = [call for call in calls if names.resolved(call.func) in _CHECKPOINTERS]
        self._sessions = set(known)
        self._checkpointers: set[str] = set()
        self._factories: set[str] = set()
        self._find_annotated(tree)
        size = -1
        while size != (size := len(self._sessions) + len(self._checkpointers) + len(self._factories)):
            for scope in scopes:  # a session may be passed on by a function that was passed it
                self._find_in(scope)

    def is_session(self, expression: ast.AST) -> bool:
        """Tell whether an expression is a session, as far as names show it."""
        name = dotted(expression)
        if name is None:
            return self._opens(expression)
        return name in self._sessions or "session" in last_part(name).lower()

    def is_checkpointer(self, expression: ast.AST) -> bool:
        """Tell whether an expression is a `Checkpointer`."""
        return dotted(expression) in self._checkpointers or self._makes_checkpointer(expression)

    def _find_annotated(self, tree: ast.Module) -> None:
        for node in walk(tree):
            if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
                annotation = node.annotation
                if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
                    resolved = annotation.value
                else:
                    resolved = self._names.resolved(annotation)
                name = node.arg if isinstance(node, ast.arg) else dotted(node.target)
                if resolved in _SESSIONS and name is not None:
                    self._sessions.add(name)

    def _find_in(self, scope: Scope) -> None:
        for name, values in scope.values.items():
            if any(map(self._is_known, values)):
                self._sessions.add(name)
            if any(map(self.is_checkpointer, values)):
                self._checkpointers.add(name)
        for node in scope.nodes:
            if (
                isinstance(node, ast.Return | ast.Yield)
                and node.value is not None
                and self._is_known(node.value)
            ):
                self._factories.add(getattr(scope.node, "name", ""))

    def _is_known(self, value: ast.expr) -> bool:
        return dotted(value) in self._sessions or self._opens(value)

    def _opens(self, node: ast.AST) -> bool:
        """Tell whether an expression opens a session, or enters one that it opens."""
        if not isinstance(node, ast.Call):
            return False
        if node in self.calls or last_part(dotted(node.func) or "") in self._factories:
            return True
        if isinstance(node.func, ast.Attribute) and node.func.attr in _ENTERS:
            return any(self._opens(each) for each in (*node.args, node.func.value))
        return False

    def _makes_checkpointer(self, node: ast.AST) -> bool:
        if not isinstance(node, ast.Call):
            return False
        if node in self.checkpointer_calls:
            return True
        if isinstance(node.func, ast.Attribute) and node.func.attr in _ENTERS:
            return any(self._makes_checkpointer(each) for each in (*node.args, node.func.value))
        return False
