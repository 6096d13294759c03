"""`trainerd metrics`: what a run has measured, one value a step. Needs no supervisor."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from trainerd.cli.alone_note import say_if_alone
from trainerd.cli.human import number
from trainerd.cli.options import complete_job_names, json_option, name_argument, state_option
from trainerd.cli.output import ending_quietly, make_table, print_json, show
from trainerd.cli.run_folder import find_run
from trainerd.contract.counted import counted
from trainerd.contract.metric_history import History, read_history
from trainerd.contract.nonfinite import spelled
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.contract.paths import StatePaths

ROWS_SHOWN: Final = 20
"""How many of the newest steps the table shows unless told otherwise."""

_FIRST_COLUMNS: Final = ("step", "epoch", "batch")
_HIDDEN_COLUMNS: Final = ("report",)

TERMINAL: Final = "-"
"""Stands for a plot in the terminal."""

_PICTURES: Final = (".png", ".svg", ".pdf", ".jpg", ".jpeg")
"""How the names of pictures end, of each kind that is written."""

Rows = tuple[dict[str, Any], ...]


class MetricsCommand(click.Command):
    """A verb whose ``--plot`` takes the name of a picture if one follows, and none otherwise."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--plot" in args:
            at = args.index("--plot")
            has_file = at + 1 < len(args) and args[at + 1].lower().endswith(_PICTURES)
            args = [
                *args[:at],
                f"--plot={args[at + 1] if has_file else TERMINAL}",
                *args[at + 1 + has_file :],
            ]
        return super().parse_args(ctx, args)


@click.command(cls=MetricsCommand)
@name_argument
@click.argument("other", required=False, metavar="[OTHER]", shell_complete=complete_job_names)
@click.option("--plot", metavar="[FILE]", help="Draw a curve, here or as a .png, .svg or .pdf.")
@click.option("--metric", metavar="NAME", help="Which one to draw or compare.  [default: loss]")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, exactly as measured.")
@click.option("--reports", is_flag=True, help="The scores given with session.report, not the steps.")
@click.option(
    "--last",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"Only the newest N rows; 0 is all.  [default: {ROWS_SHOWN} in the table, else all]",
)
@state_option
@json_option
def command(
    name: str,
    *,
    other: str | None,
    plot: str | None,
    metric: str | None,
    as_csv: bool,
    reports: bool,
    last: int | None,
    state: StatePaths,
    as_json: bool,
) -> None:
    """Show the metrics of a run, one value per step.

    Steps that were lost with a crash and run again are shown once, with their last values. With a second
    job the two are compared: last and best values, and the values after the same epochs.

    \b
    Example:
      trainerd metrics mnist
      trainerd metrics mnist --csv > mnist.csv
      trainerd metrics mnist --reports
      trainerd metrics mnist mnist-2
      trainerd metrics mnist --plot
      trainerd metrics mnist mnist-2 --plot out.png --metric accuracy
    """  # noqa: D301 (click leaves alone the lines after this escape)
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude one another")
    from trainerd.cli.metric_views import chosen_metric, compare_runs, plot_metric

    if (other is not None or plot is not None) and (as_csv or as_json or reports):
        raise click.UsageError("--csv, --json and --reports are for the table of one run")
    if other == name:
        raise click.UsageError(f"{name} is compared with itself; name another job")
    history = _history(state, name)
    say_if_alone(find_run(state, name))
    if other is not None or plot is not None:
        histories = {name: history} | ({other: _history(state, other)} if other is not None else {})
        chosen = chosen_metric(histories, metric)
        with ending_quietly():
            if plot is not None:
                plot_metric(histories, chosen, Path(plot) if plot != TERMINAL else None)
            else:
                compare_runs(histories, chosen, ROWS_SHOWN if last is None else last)
        return
    if last is None and not (as_csv or as_json):
        last = ROWS_SHOWN
    with ending_quietly():
        if as_json:
            _print_json(name, history, last)
        elif as_csv:
            click.echo(_csv(_newest(history.reports if reports else history.rows, last)), nl=False)
        else:
            _show(name, history, last, reports=reports)


def _history(state: StatePaths, name: str) -> History:
    path = find_run(state, name).metrics
    try:
        return read_history(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def columns_of(rows: Rows) -> tuple[str, ...]:
    """Return the columns of a table: where we are first, then what was measured, by first appearance."""
    names = dict.fromkeys(key for row in rows for key in row)
    first = [name for name in _FIRST_COLUMNS if name in names]
    return tuple(dict.fromkeys((*first, *(name for name in names if name not in _HIDDEN_COLUMNS))))


def _newest(rows: Sequence[dict[str, Any]], last: int | None) -> Rows:
    return tuple(rows[-last:] if last else rows)


def _print_json(name: str, history: History, last: int | None) -> None:
    print_json(
        {
            "job": name,
            "rows": _newest(history.rows, last),
            "reports": _newest(history.reports, last),
            "resumes": [dataclasses.asdict(resume) for resume in history.resumes],
            "superseded": len(history.superseded),
        }
    )


def _csv(rows: Rows) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns_of(rows), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(spelled(row) for row in rows)
    return buffer.getvalue()


def _show(name: str, history: History, last: int | None, *, reports: bool) -> None:
    rows = history.reports if reports else history.rows
    if not rows:
        click.echo(f"{name} has {'reported' if reports else 'measured'} nothing yet")
        return
    shown = _newest(rows, last)
    columns = columns_of(shown)
    table = make_table(*(column.upper() for column in columns), right=tuple(c.upper() for c in columns))
    for row in shown:
        table.add_row(*(number(row.get(column)) for column in columns))
    show(table)
    found = counted(len(rows), "report" if reports else "step")
    resumed = counted(len(history.resumes), "time")
    click.echo(f"\n{len(shown)} of {found}; resumed {resumed}, {_lost(history)}")


def _lost(history: History) -> str:
    """Return how many rows were lost, and run again as far as that has come."""
    newest = history.rows[-1]["step"] if history.rows else 0
    again = sum(row.get("step", 0) <= newest for row in history.superseded)
    of = "" if again == len(history.superseded) else f"{again} of "
    return f"{of}{counted(len(history.superseded), 'lost row')} run again"
