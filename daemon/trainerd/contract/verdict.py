"""The verdict on a resume: one of four words, with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["exact", "unchecked", "suspect", "different"]
"""What is known about a resume.

exact: at least one comparison of samples and of values was made, and all were equal.
unchecked: nothing could be compared.
suspect: a known cause of inexactness is present.
different: a comparison found a difference.
"""


@dataclass(frozen=True)
class Reason:
    """One reason for a verdict.

    Attributes:
        kind: Short name of the cause, in lower case with hyphens, such as ``untracked-optimizer``.
        where: The object, field, step or file and line that it is about.
        detail: What was found.
        hint: What to do about it, empty if nothing can be done.
    """

    kind: str
    where: str
    detail: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}" + (f" ({self.hint})" if self.hint else "")
