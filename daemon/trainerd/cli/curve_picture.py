"""Draws curves as a picture, with matplotlib."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trainerd.cli.terminal_plot import Points

_SIZE_INCHES: Final = (8.0, 4.0)
_DOTS_PER_INCH: Final = 150
_MARKED_POINTS_MAX: Final = 40
"""A curve of at most so many points shows each of them, a single one too."""

_VALUE_MAX: Final = 1e300
"""Greater ones are left out as infinite ones are: the span of an axis overflows near 1.8e308."""


def curve_figure(curves: Mapping[str, Points], metric: str) -> Figure:
    """Return a figure of curves by name, over the steps.

    A value that is not finite, or beyond 1e300, leaves a gap.
    """
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves.items():
        steps = [step for step, _ in points]
        values = [value if abs(value) < _VALUE_MAX else math.nan for _, value in points]
        marker = "." if len(points) <= _MARKED_POINTS_MAX else ""
        # matplotlib leaves out a label that begins with `_`: a space of no width comes before it.
        axes.plot(steps, values, marker=marker, linewidth=1.2, label=f"\u200b{_literal(name)}")
    axes.set_xlabel("step")
    axes.set_ylabel(_literal(metric))
    axes.grid(visible=True, alpha=0.3)
    if curves:
        axes.legend()
    return figure


def write_picture(curves: Mapping[str, Points], metric: str, path: Path) -> None:
    """Write curves by name as a picture of the kind that the name of the file ends in.

    Raises:
        OSError: The file cannot be written.
    """
    curve_figure(curves, metric).savefig(path, dpi=_DOTS_PER_INCH)


def _literal(text: str) -> str:
    """Return text that matplotlib draws as it is, where `$` would begin a formula."""
    return text.replace("$", r"\$")
