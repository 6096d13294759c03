"""Which names a piece of code reads before it has assigned them on every path.

A forward analysis of definite assignment: where paths join, a name counts as assigned if it is on all of them;
a path that leaves (``return``, ``raise``, ``continue``, ``break``) does not count at the join.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_State = frozenset[str] | None
"""Names assigned on every path to here; None where no path comes."""

_EXITS = frozenset({"exit", "quit", "sys.exit", "os._exit", "os.abort"})


class Reads:
    """Reads of names that were not assigned before.

    Attributes:
        first: The first such read of each name, in the order of evaluation.
        stored: Names that are assigned anywhere.
    """

    def __init__(self) -> None:
        self.first: dict[str, ast.AST] = {}
        self.stored: set[str] = set()
        self._breaks: list[list[_State]] = []

    @classmethod
    def of(cls, statements: list[ast.stmt], assigned: Iterable[str] = ()) -> Reads:
        """Analyse statements.

        Args:
            statements: The code.
            assigned: Names that are assigned before it, such as the targets of the loop around it.
        """
        reads = cls()
        reads._breaks.append([])
        reads._block(statements, frozenset(assigned))
        return reads

    # ------------------------------------------------------------------ statements

    def _block(self, statements: list[ast.stmt], state: _State) -> _State:
        for statement in statements:
            if state is None:
                return None
            state = self._statement(statement, state)
        return state

    def _statement(self, node: ast.stmt, state: frozenset[str]) -> _State:  # noqa: C901, PLR0911, PLR0912 - a case per kind of statement
        match node:
            case ast.Assign():
                state = self._read(node.value, state)
                for target in node.targets:
                    state = self._store(target, state)
                return state
            case ast.AugAssign():
                if isinstance(node.target, ast.Name):
                    self._note(node.target.id, node.target, state)
                else:
                    state = self._read(node.target, state)
                return self._store(node.target, self._read(node.value, state))
            case ast.AnnAssign():
                if node.value is None:
                    return state
                return self._store(node.target, self._read(node.value, state))
            case ast.For() | ast.AsyncFor():
                return self._for(node, state)
            case ast.While():
                return self._while(node, state)
            case ast.If():
                holds = self._read_true(node.test, state)
                state = self._read(node.test, state)
                return _joined(self._block(node.body, holds), self._block(node.orelse, state))
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    state = self._read(item.context_expr, state)
                    if item.optional_vars is not None:
                        state = self._store(item.optional_vars, state)
                return self._block(node.body, state)
            case ast.Try() | ast.TryStar():
                return self._try(node, state)
            case ast.Match():
                return self._match(node, state)
            case ast.Return() | ast.Raise():
                self._read_children(node, state)
                return None
            case ast.Continue():
                return None
            case ast.Break():
                self._breaks[-1].append(state)
                return None
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                for default in (*node.args.defaults, *node.args.kw_defaults, *node.decorator_list):
                    if default is not None:
                        state = self._read(default, state)
                self._free(node, state)
                return self._stored(node.name, state)
            case ast.ClassDef():
                self._block(node.body, state)
                return self._stored(node.name, state)
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    state = self._stored(alias.asname or alias.name.partition(".")[0], state)
                return state
            case ast.Delete():
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self._note(target.id, target, state)
                        state -= {target.id}
                return state
            case ast.Expr(value=ast.Call(func=function)) if _dotted(function) in _EXITS:
                self._read_children(node, state)
                return None
            case _:
                return self._read_children(node, state)

    def _for(self, node: ast.For | ast.AsyncFor, state: frozenset[str]) -> _State:
        before = self._read(node.iter, state)
        self._breaks.append([])
        self._block(node.body, self._store(node.target, before))
        breaks = self._breaks.pop()
        return _joined(self._block(node.orelse, before), *breaks)

    def _while(self, node: ast.While, state: frozenset[str]) -> _State:
        holds = self._read_true(node.test, state)
        before = self._read(node.test, state)
        self._breaks.append([])
        self._block(node.body, holds)
        breaks = self._breaks.pop()
        is_endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        return _joined(None if is_endless else self._block(node.orelse, before), *breaks)

    def _try(self, node: ast.Try | ast.TryStar, state: frozenset[str]) -> _State:
        done = self._block(node.body, state)
        ends = [self._block(node.orelse, done) if done is not None else None]
        for handler in node.handlers:
            # Anything of the body may have been skipped by the exception.
            ends.append(
                self._block(handler.body, self._stored(handler.name, state) if handler.name else state)
            )
        joined = _joined(*ends)
        if not node.finalbody:
            return joined
        last = self._block(node.finalbody, state if joined is None else joined)
        return None if joined is None else last

    def _match(self, node: ast.Match, state: frozenset[str]) -> _State:
        state = self._read(node.subject, state)
        is_exhaustive = any(_is_irrefutable(case.pattern) and case.guard is None for case in node.cases)
        ends: list[_State] = [] if is_exhaustive else [state]
        for case in node.cases:
            inside = state
            for each in ast.walk(case.pattern):
                name = getattr(each, "name", None) or getattr(each, "rest", None)
                if isinstance(name, str):
                    inside = self._stored(name, inside)
            if case.guard is not None:
                inside = self._read(case.guard, inside)
            ends.append(self._block(case.body, inside))
        return _joined(*ends)

    # ------------------------------------------------------------------ expressions

    def _read_children(self, node: ast.AST, state: frozenset[str]) -> frozenset[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                state = self._read(child, state)
            elif isinstance(child, ast.keyword | ast.FormattedValue):
                state = self._read(child.value, state)
        return state

    def _read(self, node: ast.expr, state: frozenset[str]) -> frozenset[str]:
        match node:
            case ast.Name():
                if isinstance(node.ctx, ast.Load):
                    self._note(node.id, node, state)
                return state
            case ast.NamedExpr():
                return self._store(node.target, self._read(node.value, state))
            case ast.Lambda():
                self._free(node, state)
                return state
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                inside = state
                for generator in node.generators:
                    inside = self._read(generator.iter, inside)
                    inside |= _names(generator.target)
                    for condition in generator.ifs:
                        inside = self._read(condition, inside)
                if isinstance(node, ast.DictComp):
                    self._read(node.key, inside)
                    self._read(node.value, inside)
                else:
                    self._read(node.elt, inside)
                return state
            case ast.BoolOp() | ast.IfExp():
                self._read_children(node, state)  # what its parts bind is not bound on every path
                return state
            case _:
                return self._read_children(node, state)

    def _read_true(self, node: ast.expr, state: frozenset[str]) -> frozenset[str]:
        """Read a condition, and return what is assigned where it holds."""
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            for part in node.values:
                state = self._read_true(part, state)
            return state
        return self._read(node, state)

    def _free(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, state: frozenset[str]) -> None:
        """Note what a function that is made here reads from around it."""
        arguments = node.args
        own = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
        own |= {each.arg for each in (arguments.vararg, arguments.kwarg) if each is not None}
        inside = Reads()
        inside._breaks.append([])
        if isinstance(node, ast.Lambda):
            inside._read(node.body, frozenset(own))
        else:
            inside._block(node.body, frozenset(own))
        shared = {
            name
            for each in ast.walk(node)
            if isinstance(each, ast.Nonlocal | ast.Global)
            for name in each.names
        }
        for name, read in inside.first.items():
            if name not in inside.stored or name in shared:
                self._note(name, read, state)
        self.stored |= shared & inside.stored

    def _store(self, target: ast.expr, state: frozenset[str]) -> frozenset[str]:
        match target:
            case ast.Name():
                return self._stored(target.id, state)
            case ast.Tuple() | ast.List():
                for element in target.elts:
                    state = self._store(element, state)
                return state
            case ast.Starred():
                return self._store(target.value, state)
            case _:  # an attribute or a subscript: the object before it is read
                return self._read_children(target, state)

    def _stored(self, name: str, state: frozenset[str]) -> frozenset[str]:
        self.stored.add(name)
        return state | {name}

    def _note(self, name: str, node: ast.AST, state: frozenset[str]) -> None:
        if name not in state:
            self.first.setdefault(name, node)


def target_names(node: ast.AST) -> frozenset[str]:
    """Return the names that the head of a loop assigns."""
    return _names(node.target) if isinstance(node, ast.For | ast.AsyncFor) else frozenset()


def _names(target: ast.expr) -> frozenset[str]:
    return frozenset(
        each.id for each in ast.walk(target) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    )


def _is_irrefutable(pattern: ast.pattern) -> bool:
    return isinstance(pattern, ast.MatchAs) and (pattern.pattern is None or _is_irrefutable(pattern.pattern))


def _joined(*states: _State) -> _State:
    reached = [state for state in states if state is not None]
    return frozenset.intersection(*reached) if reached else None


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
