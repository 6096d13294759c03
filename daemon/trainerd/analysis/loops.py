"""The loops of a script that a resume begins in the middle or skips."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from trainerd.analysis.syntax import LoopNode, dotted, last_part, target_names, walk_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.name_meanings import Names
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.sessions import Sessions

Opening = ast.expr | ast.stmt

_LOOP_CALLS: Final = frozenset({"batches", "enumerate", "steps", "epochs"})
_UNITS: Final = {"epochs": "epoch", "steps": "step", "batches": "batch", "enumerate": "batch"}
_DEPTH_MAX: Final = 10


@dataclass(eq=False)
class SessionLoop:
    """A loop whose iterations a resume does not all repeat.

    Attributes:
        node: The statement.
        unit: What one iteration is: ``batch``, ``step``, ``epoch``, or ``iteration`` of a plain loop.
        sources: Calls of the session that it draws from, more than one if several are drawn from at once.
        scope: Scope that it stands in.
        session: The session, or the `Checkpointer`, as the script names it.
        is_skipped: Whether a resume may skip it altogether; a plain loop around others begins again.
        is_ours: Whether a session drives it, rather than a `Checkpointer` saving in it.
        opened_by: Code that runs whenever it is opened: calls of the session, or a plain loop itself.
    """

    node: LoopNode
    unit: str
    sources: tuple[ast.Call, ...]
    scope: Scope
    session: str
    is_skipped: bool = True
    is_ours: bool = True
    opened_by: tuple[Opening, ...] = ()

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of its body, without those of functions within."""
        return list(walk_scope(self.node.body))

    @cached_property
    def node_set(self) -> frozenset[ast.AST]:
        """The same nodes as a set."""
        return frozenset(self.nodes)

    @cached_property
    def targets(self) -> frozenset[str]:
        """Names that its head assigns."""
        return target_names(self.node)

    def holds(self, other: SessionLoop) -> bool:
        """Tell whether another loop is within it."""
        return other.node in self.node_set


class Loops:
    """Finds the loops of a script.

    Args:
        names: The names of the script.
        sessions: Its sessions.
    """

    def __init__(self, names: Names, sessions: Sessions) -> None:
        self._names = names
        self._sessions = sessions

    def of(self, scope: Scope) -> Iterator[SessionLoop]:
        """Yield the loops of a scope, outer ones first."""
        for node in scope.nodes:
            if not isinstance(node, ast.For | ast.AsyncFor | ast.While):
                continue
            if isinstance(node, ast.While):
                calls = self._pulled(node, scope)
            else:
                calls = self.sources(node.iter, scope)
            training = tuple(call for call in calls if is_training(call))
            if training:
                unit, session = _UNITS[method_of(training[0])], session_of(training[0])
                yield SessionLoop(node, unit, training, scope, session, opened_by=training)
            elif not calls and (within := tuple(self._loops_within(node.body, scope))):
                session, before = session_of(within[0]), self._opened_before(node, within, scope)
                yield SessionLoop(
                    node, "iteration", (), scope, session, is_skipped=False, opened_by=(node, *before)
                )
            elif (saver := self._saver(node)) is not None:
                yield SessionLoop(node, "iteration", (), scope, session_of(saver), is_ours=False)

    def sources(self, expression: ast.AST, scope: Scope) -> tuple[ast.Call, ...]:
        """Return the calls such as ``session.batches(…)`` that an iterable draws from, through wrappers."""
        found: list[ast.Call] = []
        self._collect(expression, scope, found, set(), 0)
        return tuple(dict.fromkeys(found))

    # ------------------------------------------------------------------ within

    def _collect(
        self, node: ast.AST, scope: Scope, found: list[ast.Call], seen: set[str], depth: int
    ) -> None:
        if depth > _DEPTH_MAX:
            return
        name = dotted(node)
        if name is not None:
            if name not in seen:
                seen.add(name)
                for value, place in self._names.origins(name, scope):
                    self._collect(value, place, found, seen, depth + 1)
        elif isinstance(node, ast.Call):
            if self._is_loop_call(node):
                found.append(node)
                return
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                self._collect(argument, scope, found, seen, depth + 1)
            called = self._names.called(node, scope)
            if called is not None:
                self._collect_yielded(called[0], found, depth + 1)
        elif isinstance(node, ast.Starred):
            self._collect(node.value, scope, found, seen, depth + 1)
        elif isinstance(node, ast.Tuple | ast.List):
            for element in node.elts:
                self._collect(element, scope, found, seen, depth + 1)
        elif isinstance(node, ast.GeneratorExp | ast.ListComp):
            self._collect(node.generators[0].iter, scope, found, seen, depth + 1)

    def _collect_yielded(self, function: Scope, found: list[ast.Call], depth: int) -> None:
        """Collect the sources of a generator function, or of what a function returns."""
        is_generator = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in function.nodes)
        for node in function.nodes:
            if is_generator and isinstance(node, ast.For | ast.AsyncFor):
                self._collect(node.iter, function, found, set(), depth)
            elif isinstance(node, ast.YieldFrom | ast.Return) and node.value is not None:
                self._collect(node.value, function, found, set(), depth)

    def _is_loop_call(self, node: ast.AST) -> bool:
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _LOOP_CALLS
            and self._sessions.is_session(node.func.value)
        )

    def _pulled(self, loop: ast.While, scope: Scope) -> tuple[ast.Call, ...]:
        """Return the source of the iterator on which the body of a ``while`` loop calls `next`."""
        for node in walk_scope(loop.body):
            if isinstance(node, ast.For | ast.AsyncFor) and self.sources(node.iter, scope):
                return ()
            if isinstance(node, ast.Call) and dotted(node.func) == "next" and node.args:
                calls = tuple(call for call in self.sources(node.args[0], scope) if is_training(call))
                if calls:
                    return calls[:1]
        return ()

    def _loops_within(self, body: list[ast.stmt], scope: Scope) -> Iterator[ast.Call]:
        """Yield the sources of the training loops in a body, and in functions of the script that it calls."""
        seen: set[Scope] = set()
        waiting = [(list(walk_scope(body)), scope)]
        while waiting:
            nodes, place = waiting.pop(0)
            for node in nodes:
                if isinstance(node, ast.For | ast.AsyncFor):
                    yield from filter(is_training, self.sources(node.iter, place))
                elif isinstance(node, ast.Call):
                    called = self._names.called(node, place)
                    if called is not None and called[0] not in seen:
                        seen.add(called[0])
                        waiting.append((called[0].nodes, called[0]))

    @staticmethod
    def _opened_before(loop: LoopNode, within: tuple[ast.Call, ...], scope: Scope) -> list[ast.Call]:
        """Return which calls for loops within a plain loop stand before or after it in its function."""
        inside, outside = set(walk_scope(loop.body)), set(scope.nodes)
        return [call for call in within if call in outside and call not in inside]

    def _saver(self, loop: LoopNode) -> ast.Call | None:
        """Return the call with which a `Checkpointer` saves in a loop."""
        for node in walk_scope(loop.body):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "save"
                and self._sessions.is_checkpointer(node.func.value)
            ):
                return node
        return None


def opened_by_either(one: tuple[Opening, ...], other: tuple[Opening, ...]) -> tuple[Opening, ...]:
    """Return the code that opens one of two loops; none if one of them begins without the session."""
    return (*one, *other) if one and other else ()


def is_training(call: ast.Call) -> bool:
    """Tell whether a call of ``batches`` is of a loop that trains: an evaluation is run again as a whole."""
    for keyword in call.keywords:
        if keyword.arg == "train":
            return not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    return True


def method_of(call: ast.Call) -> str:
    """Return the name of the method that is called."""
    return last_part(dotted(call.func) or "") if not isinstance(call.func, ast.Attribute) else call.func.attr


def session_of(call: ast.Call) -> str:
    """Return what the script calls the object whose method is called."""
    assert isinstance(call.func, ast.Attribute)
    return dotted(call.func.value) or "session"
