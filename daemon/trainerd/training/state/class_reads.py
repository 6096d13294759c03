"""Which of its own attributes a class reads: what no method reads is output, and decides nothing."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from typing import Final

_NOT_OF_A_STEP: Final = frozenset(
    {"__init__", "__repr__", "__str__", "extra_repr", "state_dict", "load_state_dict", "__getstate__"}
)
_BY_NAME: Final = frozenset({"getattr", "vars", "exec", "eval"})
_ALL_OF_THEM: Final = frozenset({"__dict__", "__getattr__"})
"""Code with one of these may read any attribute; a method ``model.eval()`` does not."""


def reads_own(kind: type, name: str) -> bool:
    """Tell whether a method of a class reads an attribute of its object; so it counts without the source."""
    return any((names := _read_by(each)) is None or name in names for each in kind.__mro__[:-1])


@functools.lru_cache(maxsize=256)
def _read_by(kind: type) -> frozenset[str] | None:
    """Return the attributes that a class's own methods read; None if that is not known."""
    if kind.__module__ == "torch.nn.modules.module":
        return frozenset()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    methods = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in _NOT_OF_A_STEP
    ]
    nodes = [node for method in methods for node in ast.walk(method)]
    shown = {part for node in nodes if _only_shows(node) for part in ast.walk(node)}
    only_changed = {changed for node in nodes if (changed := _changed_by(node)) is not None}
    found = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in nodes
        if isinstance(node, ast.Attribute | ast.Name)
        and isinstance(node.ctx, ast.Load)
        and node not in only_changed
        and node not in shown
    }
    of_others = {node.func for node in nodes if isinstance(node, ast.Call) and _is_of_another(node)}
    named = {node.id for node in nodes if isinstance(node, ast.Name) and node not in of_others}
    return None if named & _BY_NAME or found & _ALL_OF_THEM else frozenset(found)


def _is_of_another(call: ast.Call) -> bool:
    """Tell whether a call such as ``getattr(callback, name)`` asks another object than the class's own."""
    match call:
        case ast.Call(func=ast.Name(id="getattr" | "vars"), args=[ast.Name(id=name), *_]):
            return name != "self"
    return False


def _changed_by(node: ast.AST) -> ast.AST | None:
    """Return what a statement changes in place and does not use: ``self.losses[k].append(loss)``."""
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=changed))):
            pass
        case ast.Subscript(value=changed, ctx=ast.Store()):
            pass
        case _:
            return None
    while isinstance(changed, ast.Subscript):
        changed = changed.value
    return changed


def _only_shows(node: ast.AST) -> bool:
    """Tell whether a statement prints, or logs to the standard library's logger, and does no more."""
    match node:
        case ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="debug" | "info" | "warning", value=value))):
            return "log" in ast.unparse(value).rpartition(".")[2].lower()
    return False
