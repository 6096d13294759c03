"""Which names of a script become attributes: those of one function, where they stand for the variable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import libcst as cst

if TYPE_CHECKING:
    from trainerd.adoption.edit_plan import Renaming


class Renamer:
    """Follows a walk over the tree, and renames the variables of the function that it is in.

    Args:
        renamings: The variables.
    """

    def __init__(self, renamings: list[Renaming]) -> None:
        self._attributes = {(each.scope, each.name): each.attribute for each in renamings}
        self._scopes = [0]
        self._kept: set[cst.CSTNode] = set()

    def enter(self, node: cst.CSTNode, line: int) -> None:
        """Note a node before its parts."""
        match node:
            case cst.FunctionDef():
                self._scopes.append(line)
                self._kept.add(node.name)
            case cst.ClassDef():
                self._scopes.append(-1)
                self._kept.add(node.name)
            case cst.Attribute():
                self._kept.add(node.attr)
            case cst.Arg() if node.keyword is not None:
                self._kept.add(node.keyword)
            case cst.Param():
                self._kept.add(node.name)

    def leave(self, node: cst.CSTNode) -> None:
        """Note a node after its parts."""
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._scopes.pop()

    def renamed(self, original: cst.Name, node: Any) -> Any:
        """Return what takes the place of a name."""
        attribute = self._attributes.get((self._scopes[-1], original.value))
        if attribute is None or original in self._kept:
            return node
        new = cst.ensure_type(cst.parse_expression(attribute), cst.Attribute)
        return new.with_changes(lpar=node.lpar, rpar=node.rpar)
