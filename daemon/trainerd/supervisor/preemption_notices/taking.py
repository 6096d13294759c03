"""A notice that this machine is about to be taken, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

EPOCH_MIN_S: Final = 1e9
EPOCH_MAX_S: Final = 1e11
"""Numbers outside of these are no times, seconds since the epoch."""

POLL_S: Final = 2.0
"""How often a source is asked, in seconds."""

_FAR_S: Final = 12 * 3600.0


class NotSeenError(Exception):
    """A source could not be asked, or its answer makes no sense: nothing is known. Never holds a secret."""


@dataclass(frozen=True)
class Taking:
    """A notice.

    Attributes:
        source: Who gives it, in words.
        key: What tells it from others of the same source.
        what: What happens to the machine, as in "AWS *takes this machine*".
        deadline_wall_s: When, seconds since the epoch; None if that is not known.
        drains: Whether running jobs are to leave; else none is started.
    """

    source: str
    key: str
    what: str = "takes this machine"
    deadline_wall_s: float | None = None
    drains: bool = True

    def text(self, now_wall_s: float) -> str:
        """Return the notice in words."""
        at = "" if self.deadline_wall_s is None else f" at {_clock_time(self.deadline_wall_s, now_wall_s)}"
        return f"{self.source} {self.what}{at}"


class TakingSource(Protocol):
    """Source of notices that the machine is taken."""

    @property
    def name(self) -> str:
        """How it is called in the log."""
        ...

    @property
    def poll_s(self) -> float:
        """How often to ask it, in seconds."""
        ...

    def look(self) -> tuple[Taking, ...]:
        """Return the notices that there are now. Blocks.

        Raises:
            NotSeenError: Nothing is known.
        """
        ...


def parse_moment(value: object) -> float:
    """Return a time in seconds since the epoch.

    Args:
        value: A number of seconds since the epoch, or text as ISO 8601 or RFC 1123 have it; UTC without zone.

    Raises:
        ValueError: It is no time.
    """
    if isinstance(value, str):
        return _parsed(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a time")
    if not EPOCH_MIN_S <= value <= EPOCH_MAX_S:
        raise ValueError("not a time in seconds since the epoch")
    return float(value)


def _parsed(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            try:
                moment = parsedate_to_datetime(text)
            except (ValueError, TypeError, IndexError):
                raise ValueError("not a time such as 2026-01-31T12:00:10Z") from None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        number = moment.timestamp()
    return parse_moment(number)


def _clock_time(wall_s: float, now_wall_s: float) -> str:
    moment = datetime.fromtimestamp(wall_s, UTC)
    return (
        f"{moment:%H:%M:%S} UTC" if abs(wall_s - now_wall_s) < _FAR_S else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    )
