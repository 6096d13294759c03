"""The loss curves of a disturbed and an undisturbed run, as one drawing in SVG."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chaos.second_history import read_history

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 260, 52, 12, 14, 34
TICKS: Final = 4
POINTS_MAX: Final = 600
"""More points than pixels show nothing more."""

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Restart:
    """Where a run went on.

    Attributes:
        step: The step it resumed at.
        label: Why the attempt before had ended.
    """

    step: int
    label: str


@dataclass(frozen=True)
class Curves:
    """Two runs, ready to be drawn: points are (step, loss).

    Attributes:
        undisturbed: Of the undisturbed run.
        disturbed: Of the disturbed run, the steps that count.
        lost: Of the disturbed run, the steps that were run again.
        restarts: Where it went on.
    """

    undisturbed: Points
    disturbed: Points
    lost: Points
    restarts: tuple[Restart, ...]


def curves_of(run: Path, reference: Path, outcomes: Sequence[Mapping[str, Any]]) -> Curves:
    """Read the curves of two run folders.

    Raises:
        OSError: A history is not there.
    """
    ours, theirs = read_history(run / "metrics.jsonl"), read_history(reference / "metrics.jsonl")
    kinds = {outcome["attempt"]: outcome["kind"] for outcome in outcomes}
    restarts = [
        Restart(
            marker["step"], f"attempt {marker['attempt'] - 1}: {kinds.get(marker['attempt'] - 1, 'ended')}"
        )
        for marker in ours.resumes
        if marker["attempt"] > 1
    ]
    return Curves(_points(theirs.rows), _points(ours.rows), _points(ours.lost), tuple(restarts))


def _points(rows: Sequence[Mapping[str, Any]]) -> Points:
    found = [(float(row["step"]), row["loss"]) for row in rows if isinstance(row.get("loss"), int | float)]
    stride = max(1, math.ceil(len(found) / POINTS_MAX))
    return tuple(found[::stride])


def draw(curves: Curves, *, title: str) -> str:
    """Return the drawing. Colours are the page's: it names classes."""
    points = curves.undisturbed + curves.disturbed + curves.lost
    if not points:
        return "<p>No loss was logged.</p>"
    last_step = max(step for step, _ in points)
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    span = (high - low) or 1.0

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last_step

    def y(loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / span

    def path(which: Points) -> str:
        return "M" + "L".join(f"{x(step):.1f} {y(loss):.1f}" for step, loss in which)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">',
        *_axes(last_step, low, high, x, y),
    ]
    parts += [
        f'<g class="restart"><title>{html.escape(restart.label)}, resumed at step {restart.step}</title>'
        f'<line x1="{x(restart.step):.1f}" x2="{x(restart.step):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<circle cx="{x(restart.step):.1f}" cy="{TOP}" r="3.5"/></g>'
        for restart in curves.restarts
    ]
    if curves.undisturbed:
        parts.append(f'<path class="undisturbed" d="{path(curves.undisturbed)}"/>')
    if curves.disturbed:
        parts.append(f'<path class="disturbed" d="{path(curves.disturbed)}"/>')
    parts += [
        f'<circle class="lost" cx="{x(step):.1f}" cy="{y(loss):.1f}" r="2"/>' for step, loss in curves.lost
    ]
    parts.append("</svg>")
    return "".join(parts)


def _axes(last_step: float, low: float, high: float, x: Any, y: Any) -> list[str]:
    parts = []
    for tick in range(TICKS + 1):
        step, loss = last_step * tick / TICKS, low + (high - low) * tick / TICKS
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(loss):.1f}" y2="{y(loss):.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.2f}</text>'
            f'<text x="{x(step):.1f}" y="{HEIGHT - 14}" text-anchor="middle">{step:.0f}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 1}" text-anchor="middle">step</text>')
    return parts
