"""The one time zone in which a command line shows and reads moments: that of the machine, or UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

UTC_VARIABLE: Final = "TRAINERD_UTC"

Command = TypeVar("Command", bound="Callable[..., Any]")

_is_utc = False


def utc_option(command: Command) -> Command:
    """Add ``--utc``, which the verb itself does not see: `local` and `moment` follow it."""
    return click.option(
        "--utc",
        is_flag=True,
        envvar=UTC_VARIABLE,
        expose_value=False,
        is_eager=True,
        callback=lambda _context, _option, value: show_utc(is_utc=value),
        help=f"Times in UTC.  [default: the zone of this machine; ${UTC_VARIABLE}=1 for every verb]",
    )(command)


def show_utc(*, is_utc: bool) -> None:
    """Choose the zone for the rest of this process."""
    global _is_utc  # noqa: PLW0603 - a setting of the process, as the locale is
    _is_utc = is_utc


def shown(moment: datetime) -> datetime:
    """Return a moment in the zone that is shown; one without a zone is taken as in it."""
    if _is_utc:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.astimezone()


def moment(wall_s: float) -> str:
    """Return a date and a time; that it is UTC is said where it was asked for."""
    text = shown(datetime.fromtimestamp(wall_s, UTC)).strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}Z" if _is_utc else text


def precise_moment(wall_s: float) -> str:
    """Return a date and a time with milliseconds and zone, such as 2026-11-30T13:00:00.250+01:00."""
    when = shown(datetime.fromtimestamp(wall_s, UTC))
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
