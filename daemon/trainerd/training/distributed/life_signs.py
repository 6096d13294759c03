"""Life signs of ranks: each counts up a number in the store; the others see whether it still moves.

They find a rank that is gone where its process cannot be looked at: on another host, in another container.
The observer judges by its own monotonic clock, so clocks need not agree. A thread counts the number up, so a
rank gives life signs however long its main thread computes; a stopped process gives none.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

BEAT_S: Final = 1.0
"""Time between two life signs of a rank, in seconds."""
SILENCE_LIMIT_S: Final = 60.0
"""After how long without a life sign a rank counts as lost, in seconds. Importing a large library can keep
all threads of a process from running for some seconds."""


class Silence:
    """How long each rank has given no life sign, as seen from here. Pure."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, float]] = {}

    def seen(self, rank: int, count: int, now_s: float) -> float:
        """Take in the number of a rank and return for how many seconds it has not moved."""
        last = self._last.get(rank)
        if last is None or last[0] != count:
            self._last[rank] = last = (count, now_s)
        return now_s - last[1]


class Pulse:
    """Counts this rank's number up, from a thread of its own.

    Args:
        say: Tells the others the number. What it raises ends the thread: the store is gone.
    """

    def __init__(self, say: Callable[[int], None]) -> None:
        self._say = say
        self._is_over = threading.Event()

    def start(self) -> None:
        """Give the first life sign here, and the others from the thread."""
        self._say(0)
        threading.Thread(target=self._beat, name="trainerd-pulse", daemon=True).start()

    def stop(self) -> None:
        """Give no more."""
        self._is_over.set()

    def _beat(self) -> None:
        count = 0
        while not self._is_over.wait(BEAT_S):
            count += 1
            try:
                self._say(count)
            except Exception:  # noqa: BLE001 - a rank that waits for the store finds out, and says so
                return
