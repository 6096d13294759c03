"""Which names and chains of attributes an expression reads before they are assigned."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from trainerd.analysis.syntax import Comprehension, Function, children, dotted, prefixes, stored_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.analysis.effects import Effects
    from trainerd.analysis.syntax import Place


class ExpressionReads:
    """Reads and assignments of expressions, in the order of evaluation.

    A state is the set of names that are assigned on every path. A chain such as ``self.best`` is a name of
    its own, and is assigned as well where an object before it, here ``self``, is.

    Args:
        effects_of: Returns what a call does to the variables of the code around it.

    Attributes:
        first: The first read of each name or chain before it is assigned.
        stored: Names and chains that are assigned anywhere.
    """

    def __init__(self, effects_of: Callable[[ast.Call], Effects] | None) -> None:
        self.first: dict[str, Place] = {}
        self.stored: set[str] = set()
        self._effects_of = effects_of

    def read(self, node: ast.expr, state: frozenset[str]) -> frozenset[str]:
        """Note what an expression reads, and return what is assigned after it."""
        match node:
            case ast.Name() | ast.Attribute() if (name := dotted(node)) is not None:
                self._note_chain(name, node, state)
                return state
            case ast.NamedExpr():
                return self.store(node.target, self.read(node.value, state))
            case ast.Call():
                return self._called(node, self.read_children(node, state))
            case ast.Lambda():
                self.read_function(node, state)
                return state
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self._read_comprehension(node, state)
                return state
            case ast.BoolOp() | ast.IfExp():
                self.read_children(node, state)  # what its parts bind is not bound on every path
                return state
            case _:
                return self.read_children(node, state)

    def read_children(self, node: ast.AST, state: frozenset[str]) -> frozenset[str]:
        """Note what the expressions directly below a node read."""
        for child in children(node):
            if isinstance(child, ast.expr):
                state = self.read(child, state)
            elif isinstance(child, ast.keyword | ast.FormattedValue):
                state = self.read(child.value, state)
        return state

    def read_condition(self, node: ast.expr, state: frozenset[str]) -> frozenset[str]:
        """Note what a condition reads, and return what is assigned where it holds."""
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            for part in node.values:
                state = self.read_condition(part, state)
            return state
        return self.read(node, state)

    def read_function(self, node: Function | ast.Lambda, state: frozenset[str]) -> None:
        """Note what a function that is made here reads from around it."""
        raise NotImplementedError

    def store(self, target: ast.expr, state: frozenset[str]) -> frozenset[str]:
        """Note an assignment, and return what is assigned after it."""
        match target:
            case ast.Tuple() | ast.List():
                for element in target.elts:
                    state = self.store(element, state)
                return state
            case ast.Starred():
                return self.store(target.value, state)
            case ast.Name():
                return self.store_name(target.id, state)
            case ast.Attribute() if (name := dotted(target)) is not None:
                self.read(target.value, state)
                return self.store_name(name, state)
            case _:  # a subscript: the object before it is read
                return self.read_children(target, state)

    def store_name(self, name: str, state: frozenset[str]) -> frozenset[str]:
        """Note the assignment of a name or chain."""
        self.stored.add(name)
        return state | {name}

    def note(self, name: str, node: Place, state: frozenset[str]) -> None:
        """Note the read of a name or chain."""
        if not any(prefix in state for prefix in prefixes(name)):
            self.first.setdefault(name, node)

    # ------------------------------------------------------------------ within

    def _note_chain(self, name: str, node: Place, state: frozenset[str]) -> None:
        for prefix in prefixes(name):
            self.note(prefix, node, state)

    def _called(self, call: ast.Call, state: frozenset[str]) -> frozenset[str]:
        if self._effects_of is None:
            return state
        effects = self._effects_of(call)
        for name, node in effects.first.items():
            self.note(name, node, state)
        self.stored |= effects.stored
        return state | effects.sure

    def _read_comprehension(self, node: Comprehension, state: frozenset[str]) -> None:
        for generator in node.generators:
            state = self.read(generator.iter, state) | frozenset(stored_in(generator.target))
            for condition in generator.ifs:
                state = self.read(condition, state)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            state = self.read(part, state)
