"""A finding of the analysis of a script: its place, why a resume breaks there, and what to write instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast


@dataclass(frozen=True, order=True)
class ScriptFinding:
    """One construct of a script that a resume does not restore.

    Attributes:
        line: Line of the script, from 1.
        column: Column within the line, from 1.
        rule: Short name of the rule, in lower case with hyphens.
        name: Variable or call that it is about.
        why: What goes wrong after a resume.
        instead: What to write instead.
    """

    line: int
    column: int
    rule: str
    name: str
    why: str
    instead: str

    @classmethod
    def at(cls, node: ast.expr | ast.stmt, rule: str, name: str, *, why: str, instead: str) -> ScriptFinding:
        """Return a finding at the place of a node."""
        return cls(node.lineno, node.col_offset + 1, rule, name, why, instead)


class ScriptSyntaxError(Exception):
    """A script that is not valid Python.

    Attributes:
        line: Line of the error, from 1.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line
