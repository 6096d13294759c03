"""Draws curves as an SVG picture, which browsers and documents show."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final

from trainerd.cli.terminal_plot import extent, share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.cli.terminal_plot import Points

_WIDTH: Final = 800
_HEIGHT: Final = 400
_LEFT: Final = 80
_EDGE: Final = 40
_TICKS: Final = 4
_COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")


def svg(curves: Mapping[str, Points], title: str) -> str:
    """Return a picture of curves by name, over the steps. A value that is not finite leaves a gap."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    within = extent(tuple(curves.values()))
    if within is not None:
        parts += _axes(within)
        for number, (name, points) in enumerate(curves.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            parts += [_line(piece, within, colour) for piece in _pieces(points)]
            y = _EDGE + 16 * number
            parts.append(
                f'<text x="{_WIDTH - _EDGE}" y="{y}" text-anchor="end" fill="{colour}">{escape(name)}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _pieces(points: Points) -> list[Points]:
    """Split a curve where a value is not finite."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    return [tuple(piece) for piece in pieces if piece]


def _line(points: Points, within: tuple[float, float, float, float], colour: str) -> str:
    places = [_place(point, within) for point in points]
    if len(places) == 1:
        return f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="2" fill="{colour}"/>'
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{text}"/>'


def _axes(within: tuple[float, float, float, float]) -> list[str]:
    x_min, x_max, y_min, y_max = within
    parts = []
    for tick in range(_TICKS + 1):
        part = tick / _TICKS
        value, place = y_min * (1 - part) + y_max * part, x_min * (1 - part) + x_max * part
        y = _HEIGHT - _EDGE - part * (_HEIGHT - 2 * _EDGE)
        x = _LEFT + part * (_WIDTH - _LEFT - _EDGE)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _EDGE}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 20}" text-anchor="middle">{place:.6g}</text>')
    return parts


def _place(point: tuple[float, float], within: tuple[float, float, float, float]) -> tuple[float, float]:
    x_min, x_max, y_min, y_max = within
    return (
        _LEFT + share(point[0], x_min, x_max) * (_WIDTH - _LEFT - _EDGE),
        _HEIGHT - _EDGE - share(point[1], y_min, y_max) * (_HEIGHT - 2 * _EDGE),
    )
