"""`trainerd logs`: what a job prints, and what the supervisor says. Needs no supervisor."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.daemon_log import DaemonLog, for_people
from trainerd.cli.options import complete_job_names, json_option, state_option
from trainerd.cli.output import ending_quietly, pause
from trainerd.cli.rank_logs import RankLogs
from trainerd.cli.run_folder import find_run
from trainerd.cli.terminal_bytes import for_terminal
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.contract.paths import RunPaths, StatePaths

FOLLOW_INTERVAL_S: Final = 0.2
FOLLOW_LINES: Final = 10
"""How many lines that are there already come first with ``--follow``."""


@click.command()
@click.argument("name", required=False, shell_complete=complete_job_names)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option("--rank", type=click.IntRange(min=0), metavar="N", help="Only this rank.  [default: all]")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"Only the last N lines of each rank.  [default: all, with --follow {FOLLOW_LINES}]",
)
@click.option("--daemon", is_flag=True, help="The supervisor's own log; with a NAME, what is about that job.")
@state_option
@json_option
def command(
    name: str | None,
    *,
    follow: bool,
    rank: int | None,
    lines: int | None,
    daemon: bool,
    state: StatePaths,
    as_json: bool,
) -> None:
    """Show what the ranks of a job print.

    All attempts, one after the other.

    Works with no supervisor. With several ranks each line begins with its rank. --follow goes on over
    rotation, deletion and new attempts.

    \b
    Example:
      trainerd logs mnist -f
      trainerd logs mnist --rank 1 -n 100
      trainerd logs --daemon -f
    """  # noqa: D301 (click leaves alone the lines after this escape)
    lines = FOLLOW_LINES if lines is None and follow else lines
    if name is None and not daemon:
        raise click.UsageError("name a job, or give --daemon for the supervisor's own log")
    try:
        with ending_quietly():
            if daemon:
                _show_daemon_log(state, name, lines, follow=follow, as_json=as_json)
            elif name is not None:
                _show_rank_logs(find_run(state, name), rank, lines, follow=follow, as_json=as_json)
    except PermissionError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error


def _show_rank_logs(
    run: RunPaths, rank: int | None, lines: int | None, *, follow: bool, as_json: bool
) -> None:
    with closing(RankLogs(run, rank=rank, lines=lines, whole_lines=as_json)) as logs:
        if logs.is_empty and not follow:
            whose = "no rank" if rank is None else f"no rank {rank}"
            click.echo(f"{whose} has logged anything yet in {run.rank_log(0).parent}", err=True)
        while True:
            has_more = False
            for number, data in logs.read_new():
                has_more = True
                _write(_rendered(number, data, as_json=as_json, is_mixed=logs.is_mixed))
            if not has_more and not follow:
                break
            if not has_more:
                pause(FOLLOW_INTERVAL_S)
        for number, data in logs.rest():
            _write(_rendered(number, data, as_json=as_json, is_mixed=logs.is_mixed))


def _rendered(rank: int, data: bytes, *, as_json: bool, is_mixed: bool) -> bytes:
    if as_json:
        records = ({"rank": rank, "line": line.decode(errors="replace")} for line in data.split(b"\n")[:-1])
        return b"".join(json.dumps(record).encode() + b"\n" for record in records)
    if is_mixed:
        return b"".join(b"[%d] %s" % (rank, line) for line in data.splitlines(keepends=True))
    return data


def _show_daemon_log(
    state: StatePaths, name: str | None, lines: int | None, *, follow: bool, as_json: bool
) -> None:
    with closing(DaemonLog(state.log, job=name, lines=lines)) as log:
        if not state.log.exists() and not follow:
            raise UserError(
                f"there is no log {state.log}",
                hint="no supervisor has run on this state folder; name another with --state-dir",
            )
        while True:
            has_more = False
            for line in log.read_new():
                has_more = True
                _write(line if as_json else for_people(line))
            if not has_more and not follow:
                break
            if not has_more:
                pause(FOLLOW_INTERVAL_S)


def _write(data: bytes) -> None:
    # What a job prints need not be text: into a pipe, bytes go through as they are.
    click.echo(for_terminal(data) if sys.stdout.isatty() else data, nl=False)
