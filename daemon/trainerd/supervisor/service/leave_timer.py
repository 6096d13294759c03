"""The time after which a foreground drains its job by itself, for an engine that gives no warning: pure.

An engine runs again what has left. A job that left before it had made a step would be run again for
ever without progress, so one that reports steps leaves at its first new one at the earliest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainerd.contract.heartbeat import Heartbeat


@dataclass(frozen=True)
class LeaveTimer:
    """When to leave.

    Attributes:
        period_s: How long the job may run, in seconds.
        started_s: When it was started, on the monotonic clock, in seconds.
    """

    period_s: float
    started_s: float

    def is_due(self, now_s: float, beat: Heartbeat | None, *, is_running: bool) -> bool:
        """Return whether to leave now.

        Args:
            now_s: The monotonic clock, in seconds.
            beat: What rank 0 of the running attempt reported last; None if it opens no session, or has
                not yet.
            is_running: Whether an attempt is under way. Between two attempts nothing is left to be
                saved, and how the last one ended would decide the exit code.
        """
        if not is_running or now_s - self.started_s < self.period_s:
            return False
        return beat is None or 0 <= beat.resumed_step < beat.step
