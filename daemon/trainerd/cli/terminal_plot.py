"""Draws curves as text: dots of braille, or stars where the terminal cannot show these. Without colour."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

Points = tuple[tuple[float, float], ...]
"""A curve: places and values; values that are not finite leave gaps."""

WIDTH_MIN: Final = 20
HEIGHT: Final = 12
_BRAILLE: Final = 0x2800
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the dots of a braille character, by row and column."""


def extent(curves: Sequence[Points]) -> tuple[float, float, float, float] | None:
    """Return the least and greatest place and value of curves, None if they have no finite point."""
    points = [point for curve in curves for point in curve if math.isfinite(point[1])]
    if not points:
        return None
    places, values = [x for x, _ in points], [y for _, y in points]
    return min(places), max(places), min(values), max(values)


def drawn(
    points: Points, within: tuple[float, float, float, float], width: int, *, is_plain: bool
) -> list[str]:
    """Return the lines of a chart that is at most `width` characters wide.

    Args:
        points: The curve.
        within: What the axes span, as `extent` says.
        width: Characters that a line may have.
        is_plain: Whether only ASCII can be shown.
    """
    x_min, x_max, y_min, y_max = within
    labels = [f"{y_max:.4g}", f"{(y_min / 2 + y_max / 2):.4g}", f"{y_min:.4g}"]
    margin = max(len(label) for label in labels)
    columns = max(width - margin - 2, WIDTH_MIN - margin)
    across, down = (columns, HEIGHT) if is_plain else (2 * columns, 4 * HEIGHT)
    dots = {
        (round(share(x, x_min, x_max) * (across - 1)), round((1 - share(y, y_min, y_max)) * (down - 1)))
        for x, y in points
        if math.isfinite(y)
    }
    bar = "|" if is_plain else "┤"
    lines = []
    for row in range(HEIGHT):
        label = {0: labels[0], HEIGHT // 2: labels[1], HEIGHT - 1: labels[2]}.get(row, "")
        cells = "".join(_cell(dots, column, row, is_plain=is_plain) for column in range(columns))
        lines.append(f"{label:>{margin}} {bar}{cells}".rstrip())
    first, last = f"{x_min:g}", f"{x_max:g}"
    gap = max(columns - len(first) - len(last), 1)
    lines.append(f"{'':>{margin}}  {first}{' ' * gap}{last}")
    return lines


def share(value: float, least: float, greatest: float) -> float:
    """Return where between two bounds a value is, from 0 to 1; a flat curve is in the middle."""
    span = greatest / 2 - least / 2  # halves: the difference of two large numbers may overflow
    return (value / 2 - least / 2) / span if span > 0 else 0.5


def _cell(dots: set[tuple[int, int]], column: int, row: int, *, is_plain: bool) -> str:
    if is_plain:
        return "*" if (column, row) in dots else " "
    bits = 0
    for down, pair in enumerate(_DOTS):
        for right, bit in enumerate(pair):
            if (2 * column + right, 4 * row + down) in dots:
                bits |= bit
    return chr(_BRAILLE + bits) if bits else " "
