"""Code that only shows something to a person: it changes neither weights nor the history."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.syntax import dotted, last_part, stored_in

if TYPE_CHECKING:
    from trainerd.analysis.parents import Parents
    from trainerd.analysis.scopes import Scope

_CALLS: Final = frozenset(
    {
        "write", "flush", "info", "debug", "warning", "set_postfix", "set_postfix_str", "set_description",
        "set_description_str", "refresh", "rule", "echo", "pprint", "empty_cache", "synchronize", "collect",
        "checkpoint_now", "display", "print_freq", "isatty",
    }
)  # fmt: skip
_ROOTS: Final = frozenset(
    {"print", "pprint", "pbar", "bar", "progress", "progress_bar", "logger", "logging", "console", "tqdm"}
)
_PURE: Final = frozenset(
    {"round", "float", "int", "str", "len", "max", "min", "sum", "abs", "format", "divmod", "timedelta"}
)


class Display:
    """Tells which uses of the variables of a scope only show something.

    Args:
        scope: The scope.
        scopes: All scopes of the script.
        parents: What is part of what.
    """

    def __init__(self, scope: Scope, scopes: list[Scope], parents: Parents) -> None:
        self._scopes = scopes
        self._scope = scope
        self._parents = parents
        self._harmless: dict[str, bool] = {}

    def only_shows(self, statements: list[ast.stmt]) -> bool:
        """Tell whether statements do nothing but print, log to a console or move a progress bar."""
        return all(self._shows(statement) for statement in statements)

    def is_shown(self, node: ast.AST) -> bool:
        """Tell whether the value of an expression goes into output alone."""
        outermost: ast.Call | None = None
        child = node
        for around in self._parents.around(node):
            if isinstance(around, ast.Yield | ast.Lambda):
                return False
            if isinstance(around, ast.Call) and _function_name(around) not in _PURE:
                outermost = around
            if isinstance(around, ast.stmt):
                if outermost is not None and isinstance(around, ast.Expr | ast.Return):
                    return is_display_call(outermost)
                return outermost is None and self._stands_in_output(child, around)
            child = around
        return False

    def decides(self, name: str, nodes: list[ast.AST]) -> ast.Name | ast.Attribute | None:
        """Return the use of a variable in a condition on which more than output depends."""
        for node in nodes:
            if (
                isinstance(node, ast.Name | ast.Attribute)
                and isinstance(node.ctx, ast.Load)
                and dotted(node) == name
                and self.is_decisive(node)
            ):
                return node
        return None

    def is_decisive(self, node: ast.AST) -> bool:
        """Tell whether an expression is part of a condition on which more than output depends."""
        test = self._parents.test_with(node)
        if isinstance(test, ast.If):
            return not (self.only_shows(test.body) and self.only_shows(test.orelse))
        if isinstance(test, ast.IfExp):
            return not self.is_shown(test)
        return test is not None

    def is_harmless(self, name: str) -> bool:
        """Tell whether a variable is read for output alone."""
        if name not in self._harmless:
            self._harmless[name] = True  # what only it depends on does no harm by itself
            self._harmless[name] = all(
                self.is_shown(node)
                for scope in self._scopes
                if scope is self._scope or (name not in scope.own and scope.holder(name) is self._scope)
                for node in scope.nodes
                if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
            )
        return self._harmless[name]

    # ------------------------------------------------------------------ within

    def _stands_in_output(self, child: ast.AST, statement: ast.stmt) -> bool:
        match statement:
            case ast.If() if child is statement.test:
                return self.only_shows(statement.body) and self.only_shows(statement.orelse)
            case ast.Assign() | ast.AugAssign() | ast.AnnAssign():
                return self._sets_harmless(statement)
            case ast.Raise() | ast.Expr():
                return True
            case _:
                return False

    def _sets_harmless(self, statement: ast.Assign | ast.AugAssign | ast.AnnAssign) -> bool:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [list(stored_in(target)) for target in targets]
        return all(
            found and all("." not in name and self.is_harmless(name) for name in found) for found in names
        )

    def _shows(self, node: ast.stmt) -> bool:
        match node:
            case ast.Pass() | ast.Continue() | ast.Raise():
                return not isinstance(node, ast.Continue)
            case ast.Expr(value=ast.Constant()):
                return True
            case ast.Expr(value=ast.Call() as call):
                return is_display_call(call)
            case ast.Assign() | ast.AugAssign() | ast.AnnAssign():
                return self._sets_harmless(node)
            case ast.If():
                return self.only_shows(node.body) and self.only_shows(node.orelse)
            case ast.For():
                return self.only_shows(node.body)
            case ast.With():
                return self.only_shows(node.body)
            case _:
                return False


def _function_name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return dotted(call.func) or ""


def is_display_call(call: ast.Call) -> bool:
    """Tell whether a call only shows something."""
    name = dotted(call.func)
    if name is None:
        return False
    return name.partition(".")[0] in _ROOTS or ("." in name and last_part(name) in _CALLS)
