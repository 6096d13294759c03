"""`trainerd logs`: what a job prints, and what the supervisor says. Needs no supervisor."""

from __future__ import annotations

from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.alone_note import say_if_alone
from trainerd.cli.attempt_lines import ended_wall_s
from trainerd.cli.chosen_log import check_attempt, check_rank
from trainerd.cli.daemon_log import DaemonLog, for_people
from trainerd.cli.log_lines import LogForm, ShownLines, write_out
from trainerd.cli.moments import moment_of
from trainerd.cli.options import complete_job_names, json_option, state_option
from trainerd.cli.output import ending_quietly, pause
from trainerd.cli.rank_logs import RankLogs
from trainerd.cli.run_folder import find_run
from trainerd.cli.shown_zone import utc_option
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.contract.paths import RunPaths, StatePaths

FOLLOW_INTERVAL_S: Final = 0.2
FOLLOW_LINES: Final = 10
"""How many lines that are there already come first with ``--follow``."""


@click.command()
@click.argument("name", required=False, shell_complete=complete_job_names)
@click.option("--follow", "-f", is_flag=True, help="Continue with new lines, until Ctrl-C.")
@click.option("--rank", type=click.IntRange(min=0), metavar="N", help="Only this rank.  [default: all]")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"Only the last N lines of each rank.  [default: all, with --follow {FOLLOW_LINES}]",
)
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Only this attempt.")
@click.option(
    "--since",
    metavar="TIME",
    help="Only what was printed later: a duration back (2h), or an ISO 8601 time.",
)
@click.option(
    "--timestamps", "-t", is_flag=True, help="Begin each line with the time at which it was printed."
)
@click.option(
    "--daemon", is_flag=True, help="The supervisor's own log; with a NAME, only lines about that job."
)
@state_option
@utc_option
@json_option
def command(
    name: str | None,
    *,
    follow: bool,
    rank: int | None,
    lines: int | None,
    attempt: int | None,
    since: str | None,
    timestamps: bool,
    daemon: bool,
    state: StatePaths,
    as_json: bool,
) -> None:
    """Show what the ranks of a job print.

    All attempts, one after the other, each with a line that says how it ended.

    Works with no supervisor. With several ranks each line begins with its rank. --follow continues through
    rotation, deletion and new attempts.

    The time of a line is known to the second: once a second, the length of each log is noted.

    \b
    Example:
      trainerd logs mnist -f
      trainerd logs mnist --rank 1 -n 100
      trainerd logs mnist --attempt 2
      trainerd logs mnist --since 2h --timestamps
      trainerd logs --daemon -f
    """  # noqa: D301 (click leaves alone the lines after this escape)
    if daemon and (attempt is not None or rank is not None or since is not None):
        raise click.UsageError("--attempt, --rank and --since are for what a job prints")
    since_s = moment_of(since) if since is not None else None
    lines = FOLLOW_LINES if lines is None and follow else lines
    if name is None and not daemon:
        raise click.UsageError("name a job, or give --daemon for the supervisor's own log")
    with ending_quietly():
        if daemon:
            _show_daemon_log(state, name, lines, follow=follow, as_json=as_json)
        elif name is not None:
            run = find_run(state, name)
            if attempt is not None:
                check_attempt(run, attempt)
            say_if_alone(run)
            shown = _attempts(run, attempt, since_s)
            form = LogForm(timestamps, since_s, as_json)
            _show_rank_logs(run, rank, lines, attempt=attempt, shows=shown, follow=follow, form=form)


def _attempts(run: RunPaths, attempt: int | None, since_s: float | None) -> Callable[[int], bool] | None:
    """Return which attempts are shown, None for all of them."""

    @cache
    def is_late_enough(number: int) -> bool:
        ended_s = ended_wall_s(run, number)
        return since_s is None or ended_s is None or ended_s >= since_s

    if attempt is None and since_s is None:
        return None
    return lambda number: attempt in {None, number} and is_late_enough(number)


def _show_rank_logs(
    run: RunPaths,
    rank: int | None,
    lines: int | None,
    *,
    attempt: int | None,
    shows: Callable[[int], bool] | None,
    follow: bool,
    form: LogForm,
) -> None:
    # The last lines of the file need not be those of the attempts that are shown.
    is_chosen = shows is not None
    whole_lines = form.as_json or is_chosen or form.needs_times
    with closing(
        RankLogs(run, rank=rank, lines=None if is_chosen else lines, whole_lines=whole_lines)
    ) as logs:
        if rank is not None:
            check_rank(run, rank, attempt, logs.found)
        if logs.is_empty and not follow:
            whose = "no rank" if rank is None else f"no rank {rank}"
            click.echo(f"{whose} has logged anything yet in {run.rank_log(0).parent}", err=True)
        kept = lines if is_chosen and not follow else None
        shown = ShownLines(run, logs, shows, form, lines=kept, says_endings=not form.as_json and lines != 0)
        while True:
            has_more = False
            for number, data in logs.read_new():
                has_more = True
                shown.put(number, data)
            if has_more:
                continue
            if not follow:
                break
            shown.put_endings()
            pause(FOLLOW_INTERVAL_S)
        for number, data in logs.rest():
            shown.put(number, data)
        shown.put_endings()
        shown.finish()


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
                write_out(line if as_json else for_people(line))
            if not has_more and not follow:
                break
            if not has_more:
                pause(FOLLOW_INTERVAL_S)
