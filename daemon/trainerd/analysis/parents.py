"""What an expression is part of."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from trainerd.analysis.syntax import children, walk

if TYPE_CHECKING:
    from collections.abc import Iterator


class Parents:
    """The node around each node of a tree."""

    def __init__(self, tree: ast.AST) -> None:
        self._of = {child: node for node in walk(tree) for child in children(node)}

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield the nodes around a node, from the inside to the module."""
        while node in self._of:
            node = self._of[node]
            yield node

    def loops_around(self, node: ast.AST) -> list[ast.AST]:
        """Return the loops around a node within its function, from the inside."""
        found: list[ast.AST] = []
        for each in self.around(node):
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                break
            if isinstance(each, ast.For | ast.AsyncFor | ast.While):
                found.append(each)
        return found

    def test_with(self, node: ast.AST) -> ast.If | ast.While | ast.IfExp | ast.Assert | None:
        """Return the statement in whose condition a node stands, None if it stands in none."""
        child = node
        for each in self.around(node):
            if isinstance(each, ast.If | ast.While | ast.IfExp | ast.Assert) and each.test is child:
                return each
            if isinstance(each, ast.stmt):
                return None
            child = each
        return None

    def call_with(self, node: ast.AST) -> ast.Call | None:
        """Return the outermost call of the statement that a node is an argument of."""
        found: ast.Call | None = None
        for each in self.around(node):
            if isinstance(each, ast.stmt):
                break
            if isinstance(each, ast.Call):
                found = each
        return found
