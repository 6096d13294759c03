"""The request to stop: a flag that a signal handler sets and that training reads at boundaries.

SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 (Slurm) ask for a drain. A second one of SIGTERM or SIGINT means now.
Nothing else happens in the handler. The kernel-side half of the handler also writes the signal's number into a
pipe at once, even where Python is deep in a long computation; `guardian` waits there for the deadline.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Final, Self

DRAIN_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class DrainFlag:
    """Whether, why and since when a drain is asked for.

    Invariants:
        Once set it stays set.
        The handlers that were there before are put back by `remove`.
    """

    def __init__(self) -> None:
        self.is_set = False
        self.is_urgent = False
        self.reason = ""
        self.since_monotonic_s: float | None = None
        self._former: dict[int, Any] = {}

    def install(self) -> Self:
        """Take over the signals, if this is the main thread; only there does Python allow it."""
        if threading.current_thread() is threading.main_thread():
            for number in DRAIN_SIGNALS:
                self._former[number] = signal.signal(number, self._handle)
        return self

    def remove(self) -> None:
        """Give the signals back."""
        for number, former in self._former.items():
            signal.signal(number, former if former is not None else signal.SIG_DFL)
        self._former.clear()

    def ask(self, reason: str) -> None:
        """Ask for a drain from the program itself."""
        if self.is_set:
            self.is_urgent = True
            return
        self.since_monotonic_s = time.monotonic()
        self.reason = reason
        self.is_set = True

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.is_set and number == signal.SIGUSR1:
            return  # a notice that comes again is still one notice
        self.ask(signal.Signals(number).name)

    def __enter__(self) -> Self:
        return self.install()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
