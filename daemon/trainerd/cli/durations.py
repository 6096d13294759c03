"""Durations of the command line: the ones of a spec, and a bare number of seconds."""

from __future__ import annotations

import click


def duration_s(text: str) -> float:
    """Read a duration such as ``90``, ``90s``, ``5m``, ``1h30m`` or ``2d``.

    Returns:
        Seconds, from 0 to a year.

    Raises:
        ValueError: It is none.
    """
    from trainerd.supervisor.specs.quantities import QUANTITY_CHARACTERS_MAX, parse_duration_s

    text = text.strip()
    is_bare = text.isascii() and text[-1:].isdigit() and text.replace(".", "", 1).isdigit()
    if not is_bare or len(text) > QUANTITY_CHARACTERS_MAX:
        return parse_duration_s("".join(text.split()))
    return parse_duration_s(float(text))


def option_s(option: str, text: str, *, least_s: float = 0.0) -> float:
    """Return the seconds of an option's value.

    Args:
        option: Its name, for the message.
        text: Its value.
        least_s: The shortest duration that is allowed, in seconds.

    Raises:
        click.UsageError: It is no duration, or out of range.
    """
    try:
        seconds = duration_s(text)
    except ValueError:
        seconds = -1.0
    if seconds < least_s:
        least = f" of {least_s:g} s or more" if least_s else ""
        raise click.UsageError(
            f"{option} {text[:40]!r} is not a duration{least}, up to a year; write 90s, 5m, 1h30m or 2d"
        )
    return seconds
