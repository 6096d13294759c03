"""Targets of a benchmark, and a line for each that says whether it is met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """What was measured, and what it is to be.

    Attributes:
        name: What it is, with its unit.
        measured: What was measured; None if there is nothing to measure it on.
        wanted: What it is to be.
        sense: On which side of that it is to lie.
    """

    name: str
    measured: float | None
    wanted: float
    sense: Literal["at most", "at least", "more than"]

    @property
    def is_met(self) -> bool:
        """Whether it is; what was not measured is not."""
        if self.measured is None:
            return False
        if self.sense == "more than":
            return self.measured > self.wanted
        return self.measured <= self.wanted if self.sense == "at most" else self.measured >= self.wanted

    def line(self) -> str:
        measured = "not measured" if self.measured is None else f"{self.measured:.3g}"
        word = "PASS" if self.is_met else "MISS"
        return f"{word} {self.name}: {measured} (target: {self.sense} {self.wanted:.3g})"


def print_verdicts(targets: list[Target]) -> int:
    """Print a line for each target; return 0 if all are met, 1 otherwise."""
    for target in targets:
        print(target.line(), flush=True)
    return 0 if all(target.is_met for target in targets) else 1
