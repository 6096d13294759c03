"""What `trainerd metrics` shows besides its table: curves, and two runs beside each other."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.metric_comparison import epoch_rows, metric_names, rows_with, value_rows
from trainerd.cli.needs_package import needing
from trainerd.cli.output import make_table, show, terminal_width
from trainerd.cli.terminal_plot import drawn, extent
from trainerd.contract.counted import counted
from trainerd.contract.nearest import nearest_hint
from trainerd.contract.safe_text import safe_line
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trainerd.cli.terminal_plot import Points
    from trainerd.contract.metric_history import History

LABEL_CHARACTERS_MAX: Final = 8
"""Longest name of a job that heads columns; for longer ones there are letters."""

PLOT_COLUMNS: Final = 100
"""Widest plot in a terminal, in characters."""


def chosen_metric(histories: Mapping[str, History], wanted: str | None) -> str:
    """Return the metric to draw or compare.

    Raises:
        UserError: Nothing was measured, or not that; the hint names what was.
    """
    known = dict.fromkeys(key for history in histories.values() for key in metric_names(history))
    if not known:
        raise UserError(f"{' and '.join(histories)}: nothing was measured yet")
    if wanted is None:
        return "loss" if "loss" in known else next(iter(known))
    if wanted not in known:
        raise UserError(f"{' and '.join(histories)}: no metric {wanted!r}", hint=nearest_hint(wanted, known))
    return wanted


def _points(history: History, metric: str) -> Points:
    return tuple(
        (float(row["step"]), float(row[metric]))
        for row in rows_with(history, metric)
        if isinstance(row.get("step"), int)
    )


def plot_metric(histories: Mapping[str, History], metric: str, target: Path | None) -> None:
    """Draw a metric of runs: in the terminal, or as a picture.

    Raises:
        UserError: The picture cannot be written, or matplotlib is not installed.
    """
    curves = {name: _points(history, metric) for name, history in histories.items()}
    if target is not None:
        _write_picture(curves, metric, target)
        return
    within = extent(tuple(curves.values()))
    width = min(terminal_width() or PLOT_COLUMNS, PLOT_COLUMNS)
    for name, points in curves.items():
        gaps = sum(not math.isfinite(value) for _, value in points)
        said = f", {gaps} not finite" if gaps else ""
        click.echo(safe_line(f"{name}: {metric} over {counted(len(points), 'step')}{said}"))
        if within is not None:
            for line in drawn(points, within, width, is_plain=not _shows_braille()):
                click.echo(line)


def _write_picture(curves: Mapping[str, Points], metric: str, path: Path) -> None:
    with needing("matplotlib", "a picture", "plot"):
        from trainerd.cli.curve_picture import write_picture
    try:
        write_picture(curves, metric, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    click.echo(f"{path}: {metric} of {', '.join(curves)}")


def _shows_braille() -> bool:
    try:
        "\u2840\u2524".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def compare_runs(histories: Mapping[str, History], metric: str, last: int) -> None:
    """Print two runs beside each other; of the epochs, the newest `last`, 0 for all."""
    (first, second), (one, two) = histories, histories.values()
    if max(len(first), len(second)) > LABEL_CHARACTERS_MAX:
        click.echo(safe_line(f"A: {first}, B: {second}"))
        first, second = "A", "B"
    headings = ("METRIC", f"LAST {first}", f"LAST {second}", f"BEST {first}", f"BEST {second}")
    table = make_table(*headings, right=headings[1:])
    for row in value_rows(one, two):
        table.add_row(*row)
    show(table)
    rows = epoch_rows(one, two, metric)
    shown = rows[-last:]
    headings = ("EPOCH", f"STEP {first}", f"STEP {second}", f"{metric} {first}", f"{metric} {second}")
    table = make_table(*headings, right=headings)
    for row in shown:
        table.add_row(*row)
    reached = counted(len(rows), "epoch that both have", "epochs that both have")
    click.echo(f"\n{len(shown)} of {reached} reached, at the last step of each")
    if shown:
        show(table)
