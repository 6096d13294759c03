"""Moments as they are written on a command line: so long ago, or a date and time."""

from __future__ import annotations

from datetime import datetime

from trainerd.cli.durations import duration_s
from trainerd.cli.shown_zone import shown
from trainerd.contract.clock import SystemClock
from trainerd.errors import UserError


def moment_of(text: str) -> float:
    """Return the moment that is meant by ``90s``, ``2h`` or ``2026-11-30T12:00``, in seconds since the epoch.

    A time without a zone is in the zone that is shown: that of this machine, or UTC with ``--utc``.

    Raises:
        UserError: It is neither.
    """
    try:
        return SystemClock().wall_s() - duration_s(text)
    except ValueError:
        pass
    try:
        return shown(datetime.fromisoformat(text)).timestamp()
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{text!r} is no time", hint="write a duration back such as 30m or 2h, or 2026-11-30T12:00"
        ) from error
