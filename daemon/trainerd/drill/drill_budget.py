"""What the budget of a drill allows: how long an attempt may take, and whether another fault is begun."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from trainerd.drill.drill_report import FaultResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.drill.fault_plan import PlannedFault

ATTEMPT_LIMIT_S_MIN: Final = 60.0
ATTEMPT_LIMIT_FACTOR: Final = 5.0
"""An attempt may take so many times what is expected of it."""
OVERRUN: Final = 1.2
"""No fault is begun that is expected to end after so many budgets."""


def attempt_limit_s(expected_s: float) -> float:
    """Return how long an attempt may take that is expected to take so long, in seconds."""
    return max(ATTEMPT_LIMIT_S_MIN, ATTEMPT_LIMIT_FACTOR * expected_s)


def patience_s(began_s: float, budget_s: float) -> float:
    """Return how long an attempt that begins now may take while it makes steps, in seconds.

    Args:
        began_s: When the drill began, by the monotonic clock.
        budget_s: Time for the whole drill, in seconds.
    """
    return OVERRUN * budget_s - (time.monotonic() - began_s)


def only_slow(fault: PlannedFault, message: str, did: str) -> FaultResult:
    """Return the result of a run that was ended at its limit, and would have ended by itself.

    The machine is busier than when the job was measured.

    Args:
        fault: What it was to show.
        message: Of the attempt; its first line says how long it took.
        did: What it still did then.
    """
    said, _, _ = message.partition("\n")
    message = f"{said}, and still {did}: give a larger --budget"
    return FaultResult(fault.name, fault.title, "not-run", message=message, lacks_budget=True)


class LongestRun:
    """What the next run of a drill is expected to take: as long as the longest of those that were timed.

    Attributes:
        seconds: How long that was, 0 before the first one.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Time a run, unless it raises."""
        began_s = time.monotonic()
        yield
        self.seconds = max(self.seconds, time.monotonic() - began_s)


def unless_used_up(
    fault: PlannedFault, *, began_s: float, budget_s: float, expected_s: float = 0.0
) -> FaultResult | None:
    """Return the result of a fault that is not begun any more, None if there is time for it.

    Args:
        fault: The fault.
        began_s: When the drill began, by the monotonic clock.
        budget_s: Time for the whole drill, in seconds.
        expected_s: How long the fault is expected to take, in seconds.
    """
    spent_s = time.monotonic() - began_s
    if spent_s + expected_s <= OVERRUN * budget_s:
        return None
    used = "is used up" if spent_s > budget_s else f"leaves no time for it (about {expected_s:.0f} s)"
    message = f"the budget of {budget_s:g} s {used}: give a larger --budget"
    return FaultResult(fault.name, fault.title, "not-run", message=message, lacks_budget=True)
