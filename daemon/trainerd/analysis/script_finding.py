"""A finding of the analysis of a script: its place, why a resume breaks there, and what to write instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable


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
        loops: First and last line of the code that opens a loop it is about; none if it holds for any.
    """

    line: int
    column: int
    rule: str
    name: str
    why: str
    instead: str
    loops: tuple[tuple[int, int], ...] = ()

    @classmethod
    def at(
        cls,
        node: ast.expr | ast.stmt,
        rule: str,
        name: str,
        *,
        why: str,
        instead: str,
        opened_by: Iterable[ast.expr | ast.stmt] = (),
    ) -> ScriptFinding:
        """Return a finding at the place of a node, about the loops that some code opens."""
        return cls(node.lineno, node.col_offset + 1, rule, name, why, instead, lines_of(opened_by))

    def is_about(self, lines: Iterable[int]) -> bool:
        """Tell whether it is about a loop that is opened by code at these lines."""
        return not self.loops or any(first <= line <= last for line in lines for first, last in self.loops)


def lines_of(code: Iterable[ast.expr | ast.stmt]) -> tuple[tuple[int, int], ...]:
    """Return the first and last line of each."""
    return tuple([(each.lineno, each.end_lineno or each.lineno) for each in code])


class ScriptSyntaxError(Exception):
    """A script that is not valid Python.

    Attributes:
        line: Line of the error, from 1.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line
