"""The request to stop: a flag that a signal handler sets and that training reads at boundaries.

SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 (Slurm) ask for a drain. A second one of SIGTERM or SIGINT means now.
Nothing else happens in the handler. The kernel-side half of the handler also writes the signal's number into
a pipe at once, even where Python is deep in a long computation: `trainerd.training.interruption.deadline`
listens there.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Final, Self

DRAIN_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class DrainFlag:
    """Whether, why and since when a drain is asked for.

    Attributes:
        notices: A descriptor from which the number of each signal can be read, one byte each, as soon as it
            comes; None if the signals are not ours.

    Invariants:
        Once set it stays set.
        The handlers that were there before are put back by `remove`.
    """

    def __init__(self) -> None:
        self.is_set = False
        self.reason = ""
        self.notices: int | None = None
        self._former: dict[int, Any] = {}
        self._notify: int | None = None
        self._former_wakeup = -1

    def install(self) -> Self:
        """Take over the signals, if this is the main thread; only there does Python allow it."""
        if threading.current_thread() is threading.main_thread():
            self.notices, self._notify = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._notify, False)
            self._former_wakeup = signal.set_wakeup_fd(self._notify, warn_on_full_buffer=False)
            for number in DRAIN_SIGNALS:
                self._former[number] = signal.signal(number, self._handle)
        return self

    def remove(self) -> None:
        """Give the signals back, and end what is read from `notices`."""
        for number, former in self._former.items():
            signal.signal(number, former if former is not None else signal.SIG_DFL)
        self._former.clear()
        if self._notify is not None:
            signal.set_wakeup_fd(self._former_wakeup)
            os.close(self._notify)
            self._notify = None

    def ask(self, reason: str) -> None:
        """Ask for a drain from the program itself."""
        if not self.is_set:
            self.reason = reason
            self.is_set = True

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.ask(signal.Signals(number).name)
