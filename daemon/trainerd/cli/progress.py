"""How far jobs are and when they will be done, from looking at them again and again: pure.

The pace is that of the last minutes as seen by this command: a job that was drained, or went back to an
older checkpoint, is measured again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trainerd.supervisor.api.control import JobView

WINDOW_S: Final = 120.0
"""How far back the pace looks, in seconds."""

SEEN_MIN_S: Final = 3.0
"""Before so much was seen, in seconds, a pace is a guess."""

BAR_WIDTH: Final = 16

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


class Pace:
    """How fast one job moves."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()
        self._attempt = -1

    def see(self, job: JobView, now_s: float) -> None:
        """Take note of how far the job is.

        Args:
            job: As it is now.
            now_s: Seconds on a clock that only goes forward.
        """
        share = job.share_done
        if share is None or job.state != "running":
            self._seen.clear()
            return
        if job.attempt != self._attempt or (self._seen and share < self._seen[-1][1]):
            self._seen.clear()
            self._attempt = job.attempt
        self._seen.append((now_s, share))
        while now_s - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()

    def left_s(self) -> float | None:
        """Return in how many seconds the job will be done at this pace; None if that cannot be told yet."""
        if not self._seen:
            return None
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        if last_s - first_s < SEEN_MIN_S or last <= first:
            return None
        return (1.0 - last) * (last_s - first_s) / (last - first)


def bar(share: float, width: int = BAR_WIDTH, *, is_plain: bool = False) -> str:
    """Return a bar: filled in eighths of a character, or of ``#`` where the terminal has no others."""
    if is_plain:
        return f"{'#' * int(share * width):<{width}}"
    whole, part = divmod(int(share * width * 8), 8)
    return f"{'█' * whole}{_EIGHTHS[part] if whole < width else ''}".ljust(width)
