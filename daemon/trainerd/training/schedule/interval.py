"""How long to train between two checkpoints: the interval that loses least, from what was measured. Pure.

Saving often costs the time of the saves, saving seldom costs the work lost at a failure. Young ("A first
order approximation to the optimum checkpoint interval", CACM 17(9), 1974) puts the optimum at sqrt(2 δ M),
with δ the cost of a save and M the mean time between failures; Daly ("A higher order estimate of the optimum
checkpoint interval for restart dumps", FGCS 22(3), 2006) refines it, which matters where δ is not small
beside M.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

INTERVAL_S_MIN: Final = 5.0
INTERVAL_S_MAX: Final = 3600.0

PRIOR_FAILURE_S: Final = 4 * 3600.0
"""Before anything was seen: one failure in four hours, with the weight of one observation."""


@dataclass(frozen=True)
class IntervalPlan:
    """The interval, and what it follows from, in seconds."""

    interval_s: float
    save_cost_s: float
    failure_every_s: float

    def __str__(self) -> str:
        return (
            f"a checkpoint every {self.interval_s:.0f} s: a save costs {self.save_cost_s * 1000:.1f} ms, "
            f"and a failure comes about every {self.failure_every_s / 60:.0f} min"
        )


def planned_interval(*, save_cost_s: float, failures: int, trained_s: float) -> IntervalPlan:
    """Return the interval that minimises the expected loss.

    Args:
        save_cost_s: What one save costs the loop, in seconds.
        failures: Attempts of this run that did not end well.
        trained_s: How long all attempts together have run, in seconds.
    """
    failure_every_s = (trained_s + PRIOR_FAILURE_S) / (failures + 1)
    best_s = daly_interval_s(save_cost_s, failure_every_s)
    return IntervalPlan(min(max(best_s, INTERVAL_S_MIN), INTERVAL_S_MAX), save_cost_s, failure_every_s)


def daly_interval_s(save_cost_s: float, failure_every_s: float) -> float:
    """Return Daly's estimate of the optimum (his equation 37).

    It is the training time between two saves, in seconds.
    """
    if save_cost_s >= 2 * failure_every_s:
        return failure_every_s
    ratio = save_cost_s / (2 * failure_every_s)
    return math.sqrt(2 * save_cost_s * failure_every_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save_cost_s
