"""Functions of a script, and the module: what is assigned to which name in each."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from trainerd.analysis.syntax import Function, ScopeNode, children, dotted, parameters, stored_in, walk_scope

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(eq=False)
class Scope:
    """A function, or the module.

    Attributes:
        node: The function or the module.
        parent: Scope around it, None for the module.
        owner: Class that it is a method of, None if it is none.
        values: What is assigned to each name and chain of attributes, and passed to each parameter.
    """

    node: ScopeNode
    parent: Scope | None
    owner: ast.ClassDef | None
    values: dict[str, list[ast.expr]] = field(default_factory=dict)

    @property
    def body(self) -> list[ast.stmt]:
        """Its statements."""
        return self.node.body

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of its statements, without those of functions and classes within."""
        return list(walk_scope(self.node.body))

    @cached_property
    def shared(self) -> frozenset[str]:
        """Names that it declares ``global`` or ``nonlocal``."""
        declared = (node.names for node in self.nodes if isinstance(node, ast.Global | ast.Nonlocal))
        return frozenset(name for names in declared for name in names)

    @cached_property
    def own(self) -> frozenset[str]:
        """Names that are its own: parameters, and what it assigns."""
        found = set(parameters(self.node)) if isinstance(self.node, Function) else set()
        for node in self.nodes:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
        return frozenset(found - self.shared)

    @cached_property
    def self_name(self) -> str | None:
        """Name of the first parameter of a method, None for other functions."""
        if self.owner is None or not isinstance(self.node, Function):
            return None
        return next(iter(parameters(self.node)), None)

    def holder(self, name: str) -> Scope:
        """Return the scope that a name belongs to, as it is read here."""
        if name in self.own or self.parent is None:
            return self
        return self.parent.holder(name)


_SCOPES: Final = frozenset({ast.Module, ast.FunctionDef, ast.AsyncFunctionDef})
_ASSIGNS: Final = frozenset({ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.withitem})
_SIMPLE: Final = frozenset(
    {ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Return, ast.Import, ast.ImportFrom, ast.Delete}
    | {ast.Raise, ast.Assert, ast.Global, ast.Nonlocal, ast.Pass, ast.Break, ast.Continue, ast.arguments}
    | {ast.Name, ast.Attribute, ast.Call, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Constant}
)
"""Statements and expressions in which no statement can stand."""


def scopes_of(tree: ast.Module) -> list[Scope]:
    """Return the module and all functions, outer ones first."""
    return list(_scopes(tree, None, None))


def _scopes(node: ast.AST, parent: Scope | None, owner: ast.ClassDef | None) -> Iterator[Scope]:
    kind = node.__class__
    if kind in _SCOPES:
        assert isinstance(node, ScopeNode)
        parent = Scope(node, parent, owner)
        parent.values |= _values(parent)
        yield parent
        owner = None
    elif isinstance(node, ast.ClassDef):
        owner = node
    for child in children(node):
        if child.__class__ not in _SIMPLE:  # no function can be within
            yield from _scopes(child, parent, owner)


def _values(scope: Scope) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for each in scope.nodes:
        if each.__class__ not in _ASSIGNS:
            continue
        if isinstance(each, ast.Assign):
            for target in each.targets:
                _note(found, target, each.value)
        elif isinstance(each, ast.AnnAssign | ast.NamedExpr) and each.value is not None:
            _note(found, each.target, each.value)
        elif isinstance(each, ast.withitem) and each.optional_vars is not None:
            _note(found, each.optional_vars, each.context_expr)
    return found


def _note(found: dict[str, list[ast.expr]], target: ast.expr, value: ast.expr) -> None:
    if isinstance(target, ast.Tuple | ast.List):
        if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
            for each, its_value in zip(target.elts, value.elts, strict=True):
                _note(found, each, its_value)
        elif isinstance(value, ast.Call):
            for index, each in enumerate(target.elts):
                _note(found, each, _item(value, index))
        return
    name = dotted(target)
    if name is not None:
        found.setdefault(name, []).append(value)


def _item(call: ast.Call, index: int) -> ast.expr:
    """Return an expression for one of the objects that a call returns, at the place of the call."""
    return ast.copy_location(ast.Subscript(call, ast.Constant(index), ast.Load()), call)


def assigned_values(nodes: list[ast.AST]) -> Iterator[tuple[str, ast.expr, bool]]:
    """Yield each name or chain that code assigns, with the value, and whether it is added to what it was."""
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                single: dict[str, list[ast.expr]] = {}
                _note(single, target, node.value)
                yield from ((name, single.get(name, [node.value])[0], False) for name in stored_in(target))
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr | ast.AugAssign) and node.value is not None:
            for name in stored_in(node.target):
                yield name, node.value, isinstance(node, ast.AugAssign)
        elif isinstance(node, ast.For | ast.AsyncFor):
            for name in stored_in(node.target):
                yield name, node.iter, False
