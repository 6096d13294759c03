"""What happens when a drain is asked for and no step boundary comes in time.

A step may take a minute, an evaluation may never look at the flag. Then the newest snapshot that is still in
memory is made durable and the process leaves, before it is killed. A second signal, 2 s or more after the
first, means now.

Invariants:
    Nothing happens here unless a signal came.
    What is flushed was copied at a boundary; the live state, which may be in the middle of a step, is not
    touched.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

from trainerd.contract.signals import STOP, URGENT, is_second
from trainerd.training.interruption.drain_flag import LATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.training.interruption.drain_flag import DrainFlag

MARGIN_SHARE: Final = 0.2
"""Of the grace period, kept for the flush, until it is known how long a save takes."""
MARGIN_SHARE_MAX: Final = 0.5
MARGIN_S_MIN: Final = 0.5
SAVES_IN_MARGIN: Final = 2.0
"""A flush is given so many times what the longest save took."""


def margin_s(grace_s: float, longest_save_s: float | None) -> float:
    """Return how long before the end of the grace period a flush must begin, in seconds."""
    if longest_save_s is None:
        return grace_s * MARGIN_SHARE
    return min(max(SAVES_IN_MARGIN * longest_save_s, MARGIN_S_MIN), grace_s * MARGIN_SHARE_MAX)


class DeadlineGuard:
    """A thread that listens for signals and flushes when it must.

    Args:
        flag: Is told of each signal that asks for a drain, at once. The handler itself runs only when the
            main thread comes back to Python code, and a long computation or a collective keeps it from that.
        grace_s: Seconds from the first signal until the process is killed; None is not known.
        margin: Returns how long before that a flush must begin, in seconds.
        flush: Makes what can be made durable and leaves the process. Told why.
    """

    def __init__(
        self,
        flag: DrainFlag,
        *,
        grace_s: float | None,
        margin: Callable[[float], float],
        flush: Callable[[str], None],
    ) -> None:
        assert flag.notices is not None
        self._flag = flag
        self._notices: int = flag.notices
        self._grace_s = grace_s
        self._margin = margin
        self._flush = flush
        self._first_s: float | None = None
        threading.Thread(target=self._listen, name="trainerd-deadline", daemon=True).start()

    def _listen(self) -> None:
        deadline_s: float | None = None
        try:
            while True:
                left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
                if not select.select([self._notices], [], [], left_s)[0]:
                    if self._flag.is_answered:  # the departure has a limit of its own
                        deadline_s = None
                        continue
                    self._flush(f"no step boundary came within the {self._grace_s:g} s of grace")
                    return
                notice = os.read(self._notices, 1)
                if not notice:
                    return
                self._pass_on(notice)
                if reason := self._second(notice[0], time.monotonic()):
                    self._flush(reason)
                    return
                first_s = self._flag.signalled_at_s
                if first_s is not None and self._grace_s is not None and not self._flag.is_answered:
                    deadline_s = first_s + self._grace_s - self._margin(self._grace_s)
        finally:
            self._flag.close_notices()

    def _second(self, notice: int, now_s: float) -> str | None:
        """Note a signal; return why not to wait for a boundary, if it is a second one that means now."""
        number = notice & ~LATE
        if number not in STOP:
            return None
        is_urgent = number in URGENT and not (number == signal.SIGINT and self._flag.is_stop_button)
        if self._first_s is None:
            # Also if the flag has heard of it already: this thread may have been kept from reading for long.
            self._flag.hear(signal.Signals(number), now_s)
            self._first_s = self._flag.signalled_at_s if notice & LATE else now_s
        elif not notice & LATE and is_urgent and is_second(self._first_s, now_s, is_relayed=True):
            return f"a second signal, {signal.Signals(number).name}, means now"
        return None

    def _pass_on(self, notice: bytes) -> None:
        """Hand a signal to the event loop whose wake-up descriptor was there before ours."""
        if self._flag.is_former_wakeup_open() and not notice[0] & LATE:
            with contextlib.suppress(OSError):
                os.write(self._flag.former_wakeup, notice)
