"""A parsed training script, as the rules see it. Nothing of it is imported or run."""

from __future__ import annotations

import ast
from functools import cached_property
from typing import TYPE_CHECKING

from trainerd.analysis.coverage import TrackedCoverage
from trainerd.analysis.effects import CallEffects
from trainerd.analysis.loading import Loading
from trainerd.analysis.loops import Loops, SessionLoop
from trainerd.analysis.name_meanings import Names
from trainerd.analysis.parents import Parents
from trainerd.analysis.scopes import scopes_of
from trainerd.analysis.script_finding import ScriptSyntaxError
from trainerd.analysis.sessions import Sessions
from trainerd.analysis.silencing import silenced_lines
from trainerd.analysis.tracking import Tracking

if TYPE_CHECKING:
    from collections.abc import Collection

    from trainerd.analysis.scopes import Scope


class Script:
    """A parsed script.

    Args:
        source: Its text.
        sessions: Names that it has for a session, beside those that it shows.

    Attributes:
        source: Its text.
        tree: Its syntax tree.
        silenced: Lines whose findings a comment silences.
        scopes: The module and all functions.
        names: What its names stand for.
        sessions: Its sessions and checkpointers.
        tracking: What it tracks.
        sources: Finds what an iterable draws from.
        loops: Its loops, of each function outer ones first.

    Raises:
        ScriptSyntaxError: It is not valid Python.
    """

    def __init__(self, source: str, sessions: Collection[str] = ()) -> None:
        self.source = source
        try:
            self.tree = ast.parse(source)
        except SyntaxError as error:
            raise ScriptSyntaxError(error.msg or "invalid syntax", error.lineno or 1) from error
        except (ValueError, RecursionError, MemoryError) as error:  # null bytes, or nested too deeply
            raise ScriptSyntaxError(str(error) or type(error).__name__, 1) from error
        self.silenced = silenced_lines(source)
        self.scopes = scopes_of(self.tree)
        self.names = Names(self.tree, self.scopes)
        self.sessions = Sessions(self.tree, self.names, self.scopes, sessions)
        self.tracking = Tracking(self.names, self.sessions, self.scopes)
        self.sources = Loops(self.names, self.sessions)
        self.loops: list[SessionLoop] = [loop for scope in self.scopes for loop in self.sources.of(scope)]

    @property
    def has_session(self) -> bool:
        """Whether it opens or is passed a session, or makes a `Checkpointer`."""
        return bool(self.sessions.calls or self.sessions.checkpointer_calls or self.loops)

    @cached_property
    def coverage(self) -> TrackedCoverage:
        """Which of the objects that it makes are tracked."""
        return TrackedCoverage(self)

    def keeps_attributes_of(self, name: str, scope: Scope) -> bool:
        """Tell whether a name is that of a module whose plain attributes are saved with it.

        They are if it is tracked, and may be if it cannot be told what is.
        """
        if not self.names.is_module(self.names.class_of(name, scope)):
            return False
        if name == scope.self_name or not self.tracking.calls or self.tracking.is_unknown:
            return True
        return self.tracking.keeps(name, scope) or any(map(self.coverage.has, self.names.values(name, scope)))

    @cached_property
    def parents(self) -> Parents:
        """What each node is part of."""
        return Parents(self.tree)

    @cached_property
    def loading(self) -> Loading:
        """What the loaders of its loops consist of."""
        return Loading(self)

    @cached_property
    def effects(self) -> CallEffects:
        """What calls of its own functions do to variables."""
        return CallEffects(self.names)
