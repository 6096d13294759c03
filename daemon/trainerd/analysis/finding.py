"""What the analysis of a script finds: a place, why a resume breaks there, and what to write instead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
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


class ScriptSyntaxError(Exception):
    """A script that is not valid Python.

    Attributes:
        line: Line of the error, from 1.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line
