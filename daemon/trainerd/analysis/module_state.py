"""Which variables of a module its functions read for more than output."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from trainerd.analysis.clock_values import is_clock
from trainerd.analysis.effects import MUTATORS
from trainerd.analysis.scopes import assigned_values
from trainerd.analysis.script import Script
from trainerd.analysis.script_views import Views
from trainerd.analysis.syntax import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.scopes import Scope


def deciding_variables(source: str) -> frozenset[str]:
    """Return the variables of a module that its functions read, and not for output alone.

    Left out are times, and containers that functions only add to.

    Args:
        source: Text of the module. It is not run.

    Raises:
        ScriptSyntaxError: It is not valid Python.
    """
    script = Script(source)
    module = script.scopes[0]
    display = Views(script).display(module)
    found = {
        node.id for scope, node in _uses(script, module) if scope is not module and not display.is_shown(node)
    }
    return frozenset(found - _times(script, module))


def _uses(script: Script, module: Scope) -> Iterator[tuple[Scope, ast.Name]]:
    """Yield where a variable of the module is used for more than being changed in place."""
    changed = {changed for node in walk(script.tree) if (changed := _only_changed(node)) is not None}
    variables = module.own.union(*(scope.shared for scope in script.scopes))
    for scope in script.scopes:
        for node in scope.nodes:
            if (
                isinstance(node, ast.Name)
                and isinstance(node.ctx, ast.Load)
                and node.id in variables
                and node not in changed
                and scope.holder(node.id) is module
            ):
                yield scope, node


def _only_changed(node: ast.AST) -> ast.AST | None:
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=changed, attr=attribute))):
            return changed if attribute in MUTATORS else None
        case ast.Subscript(value=changed, ctx=ast.Store()):
            return changed
    return None


def _times(script: Script, module: Scope) -> set[str]:
    """Return the variables whose values come from the clock, apart from where they begin."""
    found: dict[str, list[ast.expr]] = {}
    for scope in script.scopes:
        for name, value, _ in assigned_values(scope.nodes):
            if scope.holder(name) is module and not isinstance(value, ast.Constant):
                found.setdefault(name, []).append(value)
    return {
        name
        for name, values in found.items()
        if all(any(is_clock(node, script.names) for node in walk(value)) for value in values)
    }
