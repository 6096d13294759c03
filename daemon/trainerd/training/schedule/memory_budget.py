"""How often a boundary may be copied into memory: as often as that costs training next to nothing.

A decider: it reads no clock but the one that it is given.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

COST_SHARE_MAX: Final = 0.02
"""Share of the training time that copies into memory may cost."""
BACKGROUND_WEIGHT: Final = 0.25
"""What a second of a processor in the background costs the loop, in seconds: it takes a core, at a low
priority, and memory bandwidth."""
AGREEMENT_COST_S: Final = 0.02
"""What several ranks may wait for one another to make a copy at the same boundary, in seconds."""
FIRST_COST_S: Final = 0.005
"""What a copy is taken to cost before the first one, in seconds."""


class MemoryBudget:
    """Share of the training time that copies into memory may take.

    Args:
        share: The share.
        agreement_cost_s: What each copy costs beyond its own making, in seconds.
        now: Returns the time on a clock that never goes back, in seconds.

    Attributes:
        is_written: Whether no copy is on its way.
        cost_s: What the last copy cost training, in seconds.
    """

    def __init__(
        self,
        share: float = COST_SHARE_MAX,
        *,
        agreement_cost_s: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._now = now
        self._agreement_cost_s = agreement_cost_s
        self.cost_s = FIRST_COST_S + agreement_cost_s
        self._begun_s = now()
        self._stall_s = 0.0
        self.is_written = True

    def is_due(self) -> bool:
        """Tell whether the time since the last copy is enough for the next one, which costs as much."""
        return self.is_written and self.cost_s <= self._share * (self._now() - self._begun_s)

    def begin(self) -> None:
        """The loop stops for a copy."""
        self._begun_s = self._now()

    def copied(self) -> None:
        """The loop goes on, and the copy is written in the background."""
        self._stall_s = self._now() - self._begun_s
        self.is_written = False

    def written(self, background_s: float) -> None:
        """The copy is written, or given up; the next one may come.

        Args:
            background_s: Processor time that it took in the background, in seconds.
        """
        self.cost_s = self._agreement_cost_s + self._stall_s + BACKGROUND_WEIGHT * background_s
        self.is_written = True
