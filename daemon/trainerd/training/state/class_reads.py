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
_BY_NAME: Final = frozenset({"getattr", "vars", "__dict__", "__getattr__", "exec", "eval"})
"""Code with one of these may read any attribute."""


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
    found: set[str] = set()
    for node in (node for method in methods for node in ast.walk(method)):
        target = node.target if isinstance(node, ast.AugAssign) else node
        if isinstance(target, ast.Attribute) and (target is not node or isinstance(target.ctx, ast.Load)):
            found.add(target.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
    return None if found & _BY_NAME else frozenset(found)
