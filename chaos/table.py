"""The table that everything ends with: fault, outcome, lost steps, recovery time."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chaos.faults import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HEADINGS: Final = ("fault", "struck", "outcome", "lost steps", "recovery s")


@dataclass(frozen=True)
class Row:
    """One fault, over everything in which it struck.

    Attributes:
        fault: Its name.
        struck: How often it struck.
        outcomes: How the attempts were judged that it struck; `goes on` where they did not end.
        lost_steps: Steps that were run again, one number an interruption.
        recovery_s: From the fault to the first step of the next attempt, one number an interruption.
    """

    fault: str
    struck: int
    outcomes: tuple[str, ...]
    lost_steps: tuple[int, ...]
    recovery_s: tuple[float, ...]

    def cells(self) -> tuple[str, ...]:
        """Return what stands in the table: medians, and in brackets the worst."""
        return (
            self.fault,
            str(self.struck),
            ", ".join(sorted(set(self.outcomes))),
            _spread(self.lost_steps, "{:.0f}"),
            _spread(self.recovery_s, "{:.1f}"),
        )


def rows_of(runs: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Make the table of runs as they are written down: with `strikes`, `outcomes` and `recoveries`.

    Where several faults struck one attempt, its end and its cost are those of each of them: which one ended
    it is not always to be told apart.
    """
    found: dict[str, list[tuple[str, int | None, float | None]]] = {}
    for run in runs:
        kinds = {outcome["attempt"]: outcome["kind"] for outcome in run["outcomes"]}
        costs = {cost["attempt"]: cost for cost in run["recoveries"]}
        for strike in run["strikes"]:
            found.setdefault(strike["fault"], []).append(_cost(strike, kinds, costs))
    return [
        Row(
            fault,
            len(found[fault]),
            tuple(outcome for outcome, _, _ in found[fault]),
            tuple(lost for _, lost, _ in found[fault] if lost is not None),
            tuple(took_s for _, _, took_s in found[fault] if took_s is not None),
        )
        for fault in REGISTRY
        if fault in found
    ]


def _cost(
    strike: Mapping[str, Any], kinds: Mapping[int, str], costs: Mapping[int, Mapping[str, Any]]
) -> tuple[str, int | None, float | None]:
    if not REGISTRY[strike["fault"]].ends_attempt:
        return "goes on", None, None
    cost = costs.get(strike["attempt"])
    outcome = kinds.get(strike["attempt"], "unknown")
    if cost is None:
        return outcome, None, None
    is_timed = strike["monotonic_s"] > 0 and cost["resumed_s"] > strike["monotonic_s"]
    return outcome, cost["lost_steps"], cost["resumed_s"] - strike["monotonic_s"] if is_timed else None


def _spread(numbers: Sequence[float], form: str) -> str:
    if not numbers:
        return "-"
    return f"{form.format(statistics.median(numbers))} ({form.format(max(numbers))})"


def as_text(rows: Sequence[Row]) -> str:
    """Return the table for a terminal or a page of Markdown."""
    cells = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
