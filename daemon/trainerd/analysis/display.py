"""Code that only shows something to a person: what a resume changes in it changes no weights and no history."""

from __future__ import annotations

import ast
from typing import Final

from trainerd.analysis.script import dotted

_CALLS: Final = frozenset(
    {
        "print",
        "write",
        "flush",
        "info",
        "debug",
        "warning",
        "set_postfix",
        "set_postfix_str",
        "set_description",
        "set_description_str",
        "refresh",
        "rule",
        "echo",
        "pprint",
        "empty_cache",
        "synchronize",
        "collect",
    }
)
_ROOTS: Final = frozenset(
    {"print", "pbar", "bar", "progress", "progress_bar", "logger", "logging", "log", "console"}
)
_CLOCKS: Final = frozenset(
    {
        "time.time",
        "time.perf_counter",
        "time.monotonic",
        "time.process_time",
        "time.time_ns",
        "timeit.default_timer",
    }
)


def only_shows(statements: list[ast.stmt]) -> bool:
    """Tell whether statements do nothing but print, log to a console or move a progress bar."""
    return all(_shows(statement) for statement in statements)


def _shows(node: ast.stmt) -> bool:
    match node:
        case ast.Pass() | ast.Continue():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call() as call):
            return is_display_call(call)
        case ast.Assign(targets=targets):
            return all(isinstance(target, ast.Name) for target in targets)
        case ast.AugAssign(target=ast.Name()):
            return True
        case ast.If():
            return only_shows(node.body) and only_shows(node.orelse)
        case ast.With():
            return only_shows(node.body)
        case _:
            return False


def is_display_call(call: ast.Call) -> bool:
    """Tell whether a call only shows something."""
    name = dotted(call.func)
    if name is None:
        return False
    first, _, last = name.partition(".")[0], None, name.rpartition(".")[2]
    return (
        (last in _CALLS and (first in _ROOTS or "." in name))
        or name == "print"
        or (first in _ROOTS and first not in {"log"})
    )


def is_clock(call: ast.AST, resolved: str) -> bool:
    """Tell whether an expression is a call that reads a clock.

    Args:
        call: The expression.
        resolved: Name of the function, imports spelled out.
    """
    return isinstance(call, ast.Call) and resolved in _CLOCKS
