"""How often a boundary may be copied aside: seldom enough that training does not notice."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

COPY_SHARE_MAX: Final = 0.01
"""Of the time of training that copies for a drain without a boundary may take."""
AGREEMENT_COST_S: Final = 0.02
"""What several ranks may wait for one another to make such a copy at the same boundary, in seconds."""
FIRST_COPY_COST_S: Final = 0.005
"""What such a copy is taken to cost before the first one, in seconds."""


class StagingBudget:
    """Share of the training time that copies of boundaries may take.

    Args:
        is_alone: Whether this is the only rank: several have to agree on the boundary.
    """

    def __init__(self, *, is_alone: bool) -> None:
        self._agreement_cost_s = 0.0 if is_alone else AGREEMENT_COST_S
        self._cost_s = FIRST_COPY_COST_S
        self._spent_s = time.monotonic()

    def is_enough(self) -> bool:
        """Tell whether the time since the last copy is enough for another copy."""
        since_s = time.monotonic() - self._spent_s
        return since_s * COPY_SHARE_MAX >= self._cost_s + self._agreement_cost_s

    def spent(self) -> None:
        """The state was copied just now, for whatever purpose."""
        self._spent_s = time.monotonic()

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Measure what the copy costs that is made meanwhile."""
        began_s = time.monotonic()
        yield
        self.spent()
        self._cost_s += (self._spent_s - began_s - self._cost_s) / 2
