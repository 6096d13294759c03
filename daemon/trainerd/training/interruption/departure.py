"""The way of a drained process from its last boundary to its end: `SystemExit`, within a limit.

`SystemExit` lets `finally`, `with`, `atexit`, logging handlers and the interpreter's own teardown run. A
watchdog thread ends the process if that takes too long, or if the script keeps it. Shortly after it a timer
of the kernel does, which needs no interpreter: the teardown may hang where no thread can run.

Invariants:
    What is to be saved is durable, and the outcome is on record, before a departure begins.
    From then on the exit code is 85, also where standard output is broken.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Final

from trainerd.contract.exit_codes import DRAINED
from trainerd.training.interruption.exit_timer import ExitTimer

if TYPE_CHECKING:
    from collections.abc import Callable

LEAVE_LIMIT_S: Final = 15.0
"""How long the cleanup of the script and of the interpreter may take after a drain, in seconds."""

GRACE_MARGIN_S: Final = 0.5
"""How long before the end of the grace period the watchdog ends the process, in seconds."""

TIMER_AFTER_WATCHDOG_S: Final = 0.3
"""How long after the watchdog the kernel's timer ends the process, in seconds. Less than `GRACE_MARGIN_S`."""

STREAM_LIMIT_S: Final = 0.5
"""How long a last message, or a last flush, may take, in seconds: the reader of a pipe may have stopped."""


def leave_limit_s(grace_left_s: float | None) -> float:
    """Return how long the cleanup may take, in seconds."""
    if grace_left_s is None:
        return LEAVE_LIMIT_S
    return min(LEAVE_LIMIT_S, max(grace_left_s - GRACE_MARGIN_S, 0.0))


class Departure:
    """The one departure of a process.

    Attributes:
        is_begun: Whether the process is on its way out.
        limit_s: How long it may take, in seconds.
    """

    def __init__(self) -> None:
        self.is_begun = False
        self.limit_s = LEAVE_LIMIT_S
        self._is_over = threading.Event()
        self._timer: ExitTimer | None = None

    def begin(self, end: Callable[[], object]) -> None:
        """Begin it, once.

        Args:
            end: Ends the process at once; called from a thread when the limit is over.
        """
        if self.is_begun:
            return
        self.is_begun = True
        self._is_over, limit_s = threading.Event(), self.limit_s
        is_over = self._is_over

        def watch() -> None:
            if not is_over.wait(limit_s):
                end()

        self._timer = ExitTimer(DRAINED, limit_s + TIMER_AFTER_WATCHDOG_S)
        threading.Thread(target=watch, name="trainerd-leave", daemon=True).start()
        within(STREAM_LIMIT_S, flush_streams)
        atexit.register(flush_streams)

    def call_off(self) -> None:
        """Let the process live on: for tests, which have several sessions in a process."""
        self._is_over.set()
        self.is_begun = False
        if self._timer is not None:
            self._timer.cancel()
        atexit.unregister(flush_streams)


DEPARTURE: Final = Departure()
"""That of this process."""


def within(limit_s: float, call: Callable[[], object]) -> None:
    """Make a call, and go on without its end after a time: it may block on a full pipe or a stream's lock.

    Args:
        limit_s: How long it is waited for, in seconds.
        call: The call; it runs in a thread of its own.
    """
    thread = threading.Thread(target=call, name="trainerd-last-write", daemon=True)
    with contextlib.suppress(RuntimeError):  # the interpreter is being torn down: it starts no thread
        thread.start()
        thread.join(limit_s)


def flush_streams() -> None:
    """Flush what was printed. A stream that cannot be written becomes the null device.

    The interpreter flushes once more at its end, and would change the exit code to 120 if that failed.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
