"""What of a script is not understood, so that it is left as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast


@dataclass(frozen=True, order=True)
class Refusal:
    """A reason not to change a script.

    Attributes:
        line: Line of the script, from 1.
        reason: What is not understood, or would not resume.
        instead: What to write, empty if nothing simple helps.
    """

    line: int
    reason: str
    instead: str = ""


class AdoptionRefusedError(Exception):
    """A script is not changed.

    Attributes:
        refusals: Why, in order of the lines; at least one.
    """

    def __init__(self, refusals: list[Refusal]) -> None:
        super().__init__(refusals[0].reason)
        self.refusals = tuple(sorted(set(refusals)))


def refused(node: ast.expr | ast.stmt | int, reason: str, instead: str = "") -> AdoptionRefusedError:
    """Return the error for one refusal at the place of a node, or at a line."""
    line = node if isinstance(node, int) else node.lineno
    return AdoptionRefusedError([Refusal(line, reason, instead)])
