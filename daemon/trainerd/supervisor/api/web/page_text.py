"""Numbers, durations and moments as the page shows them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

NOTHING: Final = "\N{EN DASH}"

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEPS: Final = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))


def duration_text(seconds: float | None) -> str:
    """Return a duration in its two largest units."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if 0 < seconds < 10:
        return f"{seconds:.2g} s" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"
    whole = max(int(seconds), 0)
    for size, name, small, small_name in _STEPS:
        if whole >= size:
            return f"{whole // size}{name} {whole % size // small:02d}{small_name}"
    return f"{whole} s"


def size_text(count: float | None) -> str:
    """Return a number of bytes."""
    if count is None:
        return NOTHING
    value, unit = float(count), _UNITS[0]
    for unit in _UNITS:  # noqa: B007 - the last one is used below
        if value < 1024:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def number_text(value: object) -> str:
    """Return a measured value in five significant digits."""
    if value is None:
        return NOTHING
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def moment_text(wall_s: float) -> str:
    """Return a moment, in UTC; the script of the page shows it in the reader's own zone."""
    try:
        return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return NOTHING


def spark_points(points: tuple[tuple[int, float], ...], width: int, height: int) -> str:
    """Return the ``points`` of an SVG polyline that shows a curve; empty for fewer than two points."""
    if len(points) < 2:
        return ""
    first, last = points[0][0], points[-1][0]
    low, high = min(value for _, value in points), max(value for _, value in points)
    across, up = (width - 2) / ((last - first) or 1), (height - 4) / ((high - low) or 1)
    return " ".join(
        f"{1 + (step - first) * across:.1f},{height - 2 - (value - low) * up:.1f}" for step, value in points
    )
