"""What happens when a drain is asked for and no step boundary comes in time.

A step may take a minute, an evaluation may never look at the flag. Then the newest snapshot that is still in
memory is made durable and the process leaves, before whoever asked kills it. A second signal means now.

Invariants:
    Nothing happens here unless a signal came.
    What is flushed was copied at a boundary; the live state, which may be in the middle of a step, is not
    touched.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MARGIN_SHARE: Final = 0.2
"""Of the grace period, kept for the flush, until it is known how long a save takes."""
MARGIN_SHARE_MAX: Final = 0.5
MARGIN_S_MIN: Final = 0.5
SAVES_IN_MARGIN: Final = 2.0
"""A flush is given so many times what the longest save took."""

_URGENT: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_ASKING: Final = _URGENT | {signal.SIGUSR1}


def margin_s(grace_s: float, longest_save_s: float | None) -> float:
    """Return how long before the end of the grace period a flush must begin, in seconds."""
    if longest_save_s is None:
        return grace_s * MARGIN_SHARE
    return min(max(SAVES_IN_MARGIN * longest_save_s, MARGIN_S_MIN), grace_s * MARGIN_SHARE_MAX)


class DeadlineGuard:
    """A thread that listens for signals and flushes when it must.

    Args:
        notices: Descriptor of the signals' numbers; at its end the thread ends, and closes it.
        grace_s: Seconds from the first signal until the process is killed; None is not known.
        heard: Told of each signal that asks for a drain, at once. The handler itself runs only when the main
            thread comes back to Python code, and a long computation or a collective keeps it away from there.
        margin: Returns how long before that a flush must begin, in seconds.
        flush: Makes what can be made durable and leaves the process. Told why.
    """

    def __init__(
        self,
        notices: int,
        *,
        grace_s: float | None,
        heard: Callable[[signal.Signals], None],
        margin: Callable[[float], float],
        flush: Callable[[str], None],
    ) -> None:
        self._notices = notices
        self._grace_s = grace_s
        self._heard = heard
        self._margin = margin
        self._flush = flush
        threading.Thread(target=self._listen, name="trainerd-deadline", daemon=True).start()

    def _listen(self) -> None:
        deadline_s: float | None = None
        is_asked = False
        try:
            while True:
                left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
                if not select.select([self._notices], [], [], left_s)[0]:
                    self._flush(f"no step boundary came within the {self._grace_s:g} s of grace")
                    return
                number = os.read(self._notices, 1)
                if not number:
                    return
                if number[0] in _ASKING:
                    self._heard(signal.Signals(number[0]))
                if is_asked and number[0] in _URGENT:
                    self._flush(f"a second signal, {signal.Signals(number[0]).name}, means now")
                    return
                if not is_asked and number[0] in _ASKING:
                    is_asked = True
                    if self._grace_s is not None:
                        deadline_s = time.monotonic() + self._grace_s - self._margin(self._grace_s)
        finally:
            os.close(self._notices)
