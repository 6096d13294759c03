"""What is wrong with a spec, gathered so that one reading tells the user everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FieldPath = tuple[str | int, ...]
"""Where a value stands in a spec: ``("checkpoint", "keep_best", 0, "metric")``."""


PART_CHARACTERS_MAX: Final = 100
"""Longest part of a place that is shown."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        message: What, without the place.
        field: Where in the tree; empty is the whole file.
        line: 1-based line, None if it follows from `field` or cannot be named.
        hint: How to fix it.
    """

    message: str
    field: FieldPath = ()
    line: int | None = None
    hint: str | None = None

    @property
    def text(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ProblemsError(Exception):
    """Carries problems from where they are found to where the file's name is known.

    Never leaves this package.
    """

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(problem.text for problem in problems))
        self.problems = problems


def dotted(field: FieldPath) -> str | None:
    """Write a field's place as the user would say it, None for the whole file."""
    text = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part:.{PART_CHARACTERS_MAX}}" for part in field
    )
    return text.removeprefix(".") or None


def spec_error(file: Path, problems: Sequence[Problem]) -> SpecError:
    """Make one error of all `problems`, the one that stands first in the file leading."""
    first, *others = sorted(problems, key=lambda problem: problem.line or 0)
    lines = [
        str(SpecError(other.text, file=file, line=other.line, field=dotted(other.field))) for other in others
    ]
    return SpecError("\n".join([first.text, *lines]), file=file, line=first.line, field=dotted(first.field))
