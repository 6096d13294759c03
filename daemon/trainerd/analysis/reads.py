"""Which names a piece of code reads before it has assigned them on every path.

A forward analysis of definite assignment: where paths join, a name counts as assigned if it is on all of
them; a path that leaves (``return``, ``raise``, ``continue``, ``break``) does not count at the join. A loop
counts as run at least once: an empty one, after which the value of the iteration before is meant, is rare.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final, TypeAlias

from trainerd.analysis.expression_reads import ExpressionReads
from trainerd.analysis.syntax import Function, dotted, parameters, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trainerd.analysis.effects import Effects

_State: TypeAlias = frozenset[str] | None
"""Names assigned on every path to here; None where no path comes."""

_EXITS: Final = frozenset({"exit", "quit", "sys.exit", "os._exit", "os.abort"})


class Reads(ExpressionReads):
    """Reads of names that were not assigned before.

    Attributes:
        sure: Names that are assigned on every path to the end, or to a ``return``.
    """

    def __init__(self, effects_of: Callable[[ast.Call], Effects] | None) -> None:
        super().__init__(effects_of)
        self.sure: frozenset[str] = frozenset()
        self._breaks: list[list[_State]] = [[]]
        self._returns: list[_State] = []

    @classmethod
    def of(
        cls,
        statements: list[ast.stmt],
        assigned: Iterable[str] = (),
        effects_of: Callable[[ast.Call], Effects] | None = None,
    ) -> Reads:
        """Analyse statements.

        Args:
            statements: The code.
            assigned: Names that are assigned before it, such as the targets of the loop around it.
            effects_of: Returns what a call does to the variables of the code.
        """
        reads = cls(effects_of)
        end = reads._block(statements, frozenset(assigned))
        reads.sure = _joined(end, *reads._returns) or frozenset()
        return reads

    def read_function(self, node: Function | ast.Lambda, state: frozenset[str]) -> None:
        inside = Reads(None)
        if isinstance(node, ast.Lambda):
            own = {each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
            inside.read(node.body, frozenset(own))
            shared: set[str] = set()
        else:
            inside._block(node.body, frozenset(parameters(node)))
            declared = (each for each in walk(node) if isinstance(each, ast.Nonlocal | ast.Global))
            shared = {name for each in declared for name in each.names}
        for name, read in inside.first.items():
            if name not in inside.stored or name in shared:
                self.note(name, read, state)
        self.stored |= shared & inside.stored

    # ------------------------------------------------------------------ statements

    def _block(self, statements: list[ast.stmt], state: _State) -> _State:
        for statement in statements:
            if state is None:
                return None
            state = self._statement(statement, state)
        return state

    def _statement(self, node: ast.stmt, state: frozenset[str]) -> _State:  # noqa: C901 - a case per kind of statement
        match node:
            case ast.Assign():
                state = self.read(node.value, state)
                for target in node.targets:
                    state = self.store(target, state)
                return state
            case ast.AugAssign():
                if (name := dotted(node.target)) is not None:
                    self._note_chain(name, node.target, state)
                return self.store(node.target, self.read(node.value, state))
            case ast.AnnAssign():
                return state if node.value is None else self.store(node.target, self.read(node.value, state))
            case ast.For() | ast.AsyncFor():
                return self._for(node, state)
            case ast.While():
                return self._while(node, state)
            case ast.If():
                holds = self.read_condition(node.test, state)
                state = self.read(node.test, state)
                return _joined(self._block(node.body, holds), self._block(node.orelse, state))
            case ast.With() | ast.AsyncWith():
                return self._with(node, state)
            case ast.Try() | ast.TryStar():
                return self._try(node, state)
            case ast.Match():
                return self._match(node, state)
            case ast.Return():
                self._returns.append(self.read_children(node, state))
                return None
            case ast.Raise():
                self.read_children(node, state)
                return None
            case ast.Continue():
                return None
            case ast.Break():
                self._breaks[-1].append(state)
                return None
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                for default in (*node.args.defaults, *node.args.kw_defaults, *node.decorator_list):
                    if default is not None:
                        state = self.read(default, state)
                self.read_function(node, state)
                return self.store_name(node.name, state)
            case ast.ClassDef():
                self._block(node.body, state)
                return self.store_name(node.name, state)
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    state = self.store_name(alias.asname or alias.name.partition(".")[0], state)
                return state
            case ast.Delete():
                return self._delete(node, state)
            case ast.Expr(value=ast.Call(func=function)) if dotted(function) in _EXITS:
                self.read_children(node, state)
                return None
            case _:
                return self.read_children(node, state)

    def _for(self, node: ast.For | ast.AsyncFor, state: frozenset[str]) -> _State:
        before = self.read(node.iter, state)
        self._breaks.append([])
        end = self._block(node.body, self.store(node.target, before))
        breaks = self._breaks.pop()
        return _joined(self._block(node.orelse, before if end is None else end), *breaks)

    def _while(self, node: ast.While, state: frozenset[str]) -> _State:
        holds = self.read_condition(node.test, state)
        before = self.read(node.test, state)
        self._breaks.append([])
        end = self._block(node.body, holds)
        breaks = self._breaks.pop()
        if isinstance(node.test, ast.Constant) and node.test.value:
            return _joined(*breaks)
        return _joined(self._block(node.orelse, before if end is None else end), *breaks)

    def _with(self, node: ast.With | ast.AsyncWith, state: frozenset[str]) -> _State:
        for item in node.items:
            state = self.read(item.context_expr, state)
            if item.optional_vars is not None:
                state = self.store(item.optional_vars, state)
        return self._block(node.body, state)

    def _try(self, node: ast.Try | ast.TryStar, state: frozenset[str]) -> _State:
        done = self._block(node.body, state)
        ends = [self._block(node.orelse, done)]
        for handler in node.handlers:
            # Anything of the body may have been skipped by the exception.
            before = self.store_name(handler.name, state) if handler.name else state
            ends.append(self._block(handler.body, before))
        joined = _joined(*ends)
        if not node.finalbody:
            return joined
        last = self._block(node.finalbody, state if joined is None else joined)
        return None if joined is None else last

    def _match(self, node: ast.Match, state: frozenset[str]) -> _State:
        state = self.read(node.subject, state)
        is_exhaustive = any(_is_irrefutable(case.pattern) and case.guard is None for case in node.cases)
        ends: list[_State] = [] if is_exhaustive else [state]
        for case in node.cases:
            inside = state
            for each in walk(case.pattern):
                name = getattr(each, "name", None) or getattr(each, "rest", None)
                if isinstance(name, str):
                    inside = self.store_name(name, inside)
            if case.guard is not None:
                inside = self.read(case.guard, inside)
            ends.append(self._block(case.body, inside))
        return _joined(*ends)

    def _delete(self, node: ast.Delete, state: frozenset[str]) -> frozenset[str]:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.note(target.id, target, state)
                state -= {target.id}
        return state


def _is_irrefutable(pattern: ast.pattern) -> bool:
    return isinstance(pattern, ast.MatchAs) and (pattern.pattern is None or _is_irrefutable(pattern.pattern))


def _joined(*states: _State) -> _State:
    reached = [state for state in states if state is not None]
    return frozenset.intersection(*reached) if reached else None
