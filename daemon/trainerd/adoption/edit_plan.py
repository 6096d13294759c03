"""What is to be changed in a script, by places of its text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

Span: TypeAlias = tuple[int, int, int, int]
"""First line and column of an expression, and its last line and the column after it, in characters."""


@dataclass(frozen=True)
class Wrapping:
    """Statements of one block that are put into the block of a session.

    Attributes:
        first: Line of the first statement.
        last: Line of the last one.
        header: The ``with`` statement, up to its colon.
    """

    first: int
    last: int
    header: str


@dataclass(frozen=True)
class Renaming:
    """A variable of one function, or of the module, that becomes an attribute.

    Attributes:
        scope: Line of the function's ``def``; 0 for the module.
        name: The variable.
        attribute: What takes its place, such as ``carry.total``.
    """

    scope: int
    name: str
    attribute: str


@dataclass
class EditPlan:
    """Edits of a script. All places are those of the unchanged text.

    Attributes:
        expressions: New text of expressions.
        before: Statements to put before the statement of a line.
        after: Statements to put after the statement that begins in a line.
        at_start: Statements to put first into the body of the loop of a line.
        removed: Lines of statements to leave out.
        first_parameters: New first parameter of the function whose ``def`` is in a line.
        first_arguments: New first argument of calls.
        headers: New head of the loop of a line, up to its colon.
        nested: Head of a second loop, into which the body of the loop of a line is put.
        wrapping: What is put into the block of the session.
        renamings: Variables that become attributes.
    """

    expressions: dict[Span, str] = field(default_factory=dict)
    before: dict[int, list[str]] = field(default_factory=dict)
    after: dict[int, list[str]] = field(default_factory=dict)
    at_start: dict[int, list[str]] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    first_parameters: dict[int, str] = field(default_factory=dict)
    first_arguments: dict[Span, str] = field(default_factory=dict)
    headers: dict[int, str] = field(default_factory=dict)
    nested: dict[int, str] = field(default_factory=dict)
    wrapping: Wrapping | None = None
    renamings: list[Renaming] = field(default_factory=list)
