"""The one place that reads time, so that a simulation can replace it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one to compare with files and people, one to measure with."""

    def wall_s(self) -> float:
        """Seconds since the epoch. May jump; never used to measure a duration."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment of this boot. Never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()
