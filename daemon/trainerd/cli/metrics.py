"""`trainerd metrics`: what a run has measured, one value a step. Needs no supervisor."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import TYPE_CHECKING, Any, Final

import click

from trainerd.cli.human import number
from trainerd.cli.options import json_option, name_argument, state_option
from trainerd.cli.output import ending_quietly, make_table, print_json, show
from trainerd.cli.run_folder import find_run
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

Rows = tuple[dict[str, Any], ...]


@click.command()
@name_argument
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
    name: str, *, as_csv: bool, reports: bool, last: int | None, state: StatePaths, as_json: bool
) -> None:
    """Show what a run has measured, one value a step.

    Steps that were lost with a crash and run again are shown once, as they were in the end.

    \b
    Example:
      trainerd metrics mnist
      trainerd metrics mnist --csv > mnist.csv
      trainerd metrics mnist --reports
    """  # noqa: D301 (click leaves alone the lines after this escape)
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude one another")
    path = find_run(state, name).metrics
    try:
        history = read_history(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if last is None and not (as_csv or as_json):
        last = ROWS_SHOWN
    with ending_quietly():
        if as_json:
            _print_json(name, history, last)
        elif as_csv:
            click.echo(_csv(_newest(history.reports if reports else history.rows, last)), nl=False)
        else:
            _show(name, history, last, reports=reports)


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
    what = "reports" if reports else "steps"
    click.echo(
        f"\n{len(shown)} of {len(rows)} {what}; resumed {len(history.resumes)} times, "
        f"{len(history.superseded)} lost rows run again"
    )
