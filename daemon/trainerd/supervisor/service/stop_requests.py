"""Count of the requests to stop a supervisor: the first one drains, the second hurries, the third kills."""

from __future__ import annotations

from trainerd.contract.signals import is_second


class StopRequests:
    """The requests to stop so far.

    Signals that come together are one request: batch systems signal every process, and some do it twice.

    Attributes:
        count: How many there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._newest_s = 0.0

    def note(self, now_s: float) -> bool:
        """Take in a signal; return whether it is a request of its own.

        Args:
            now_s: When it came, on the monotonic clock, in seconds.
        """
        if self.count and not is_second(self._newest_s, now_s):
            return False
        self._newest_s = now_s  # the third counts from the second, which may be heard twice as well
        self.count += 1
        return True
