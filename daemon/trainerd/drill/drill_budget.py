"""What the budget of a drill allows: how long an attempt may take, and whether another fault is begun."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from trainerd.drill.drill_report import FaultResult

if TYPE_CHECKING:
    from trainerd.drill.fault_plan import PlannedFault

ATTEMPT_LIMIT_S_MIN: Final = 60.0
ATTEMPT_LIMIT_FACTOR: Final = 5.0
"""An attempt may take so many times what is expected of it."""
OVERRUN: Final = 1.2
"""No fault is begun that is expected to end after so many budgets."""


def attempt_limit_s(expected_s: float) -> float:
    """Return how long an attempt may take that is expected to take so long, in seconds."""
    return max(ATTEMPT_LIMIT_S_MIN, ATTEMPT_LIMIT_FACTOR * expected_s)


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
