"""Waiting with a limit, and with an ear for Ctrl-C."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

POLL_S: Final = 0.1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")


class NotNowError(Exception):
    """There is nothing to strike at the moment, such as a rank of a job that is between two attempts."""


class HarnessError(Exception):
    """Something did not happen in time, or happened otherwise. The message shows the ends of the logs."""


class StopRequestedError(Exception):
    """This program was asked to stop."""


class Interruption:
    """Counts requests to stop. The handler does nothing else; those who wait look at the count."""

    def __init__(self) -> None:
        self.requests = 0

    def install(self) -> None:
        """Take SIGINT, SIGTERM and SIGHUP (a terminal that was closed)."""
        for number in _SIGNALS:
            signal.signal(number, self._count)

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        self.requests += 1


def wait_for(what: str, look: Callable[[], T | None], *, limit_s: float, interruption: Interruption) -> T:
    """Return what `look` returns as soon as that is neither None nor False.

    Args:
        what: What is waited for, for the message.
        look: Called ten times a second; raises HarnessError itself if it sees that waiting is vain.
        limit_s: Seconds after which waiting is vain in any case.
        interruption: Ends the wait too.

    Raises:
        HarnessError: It did not come in time.
        StopRequestedError: This program was asked to stop.
    """
    deadline_s = time.monotonic() + limit_s
    while True:
        if interruption.requests:
            raise StopRequestedError
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline_s:
            raise HarnessError(f"waited {limit_s:.0f} s in vain for {what}")
        time.sleep(POLL_S)
