"""`trainerd ps`: all jobs at a glance."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.changes import LIVE
from trainerd.cli.fitting_table import fitting_lines
from trainerd.cli.job_query import SORT_KEYS, STATES, choose, read_format, read_states, sort_jobs
from trainerd.cli.job_table import COLUMNS, WATCH_COLUMNS, event_line, job_rows, watch_rows
from trainerd.cli.options import complete_job_names, find_state, json_option, unsought_state_dir_option
from trainerd.cli.output import (
    ending_quietly,
    make_console,
    pause,
    print_json,
    print_json_line,
    show_lines,
    terminal_width,
)
from trainerd.cli.progress import Pace, bar
from trainerd.cli.shown_zone import utc_option
from trainerd.contract.clock import SystemClock
from trainerd.contract.counted import counted
from trainerd.contract.safe_text import one_line
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console, RenderableType

    from trainerd.cli.followed_reader import FollowedReader
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import DaemonView, JobView

WATCH_INTERVAL_S: Final = 1.0


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_job_names)
@click.option(
    "--state",
    "states",
    multiple=True,
    metavar="STATE",
    shell_complete=lambda _context, _option, beginning: [
        state for state in STATES if state.startswith(beginning)
    ],
    help="Only jobs in this state; several with commas, or given twice.",
)
@click.option("--sort", metavar="KEY", help=f"Order: {', '.join(SORT_KEYS)}; -KEY for the other direction.")
@click.option("--format", "form", metavar="TEXT", help="A line for each job, such as '{name} {step}'.")
@click.option("--quiet", "-q", is_flag=True, help="Names only, one a line.")
@click.option("--watch", "-w", is_flag=True, help="Show it again every second, until Ctrl-C.")
@unsought_state_dir_option
@utc_option
@json_option
def command(
    *,
    names: tuple[str, ...],
    states: tuple[str, ...],
    sort: str | None,
    form: str | None,
    quiet: bool,
    watch: bool,
    state: Path | None,
    as_json: bool,
) -> None:
    """Show all jobs, with progress, state and reason.

    EPOCH counts the epochs that are done, of how many: 1.30/10 is in the second. CHECKPOINT is the step of
    the newest checkpoint, to which a crash now would go back. For a job that does not train at the moment,
    STEP and EPOCH are those of that checkpoint. In a narrow terminal columns are left out, but never a name.
    --watch shows a bar and the time that is left at the pace seen; in a pipe, a line for each change.

    \b
    Example:
      trainerd ps
      trainerd ps --watch
      trainerd ps 'mnist-*' --state parked,rejected -q
      trainerd ps --format '{name} {step} {loss}' --sort -step
      trainerd ps --json | jq -r '.[] | select(.state == "parked") | .name'
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.cli.readers import reader

    if sum((form is not None, quiet, as_json)) > 1:
        raise click.UsageError("--format, --quiet and --json exclude one another")
    states, state, word = _old_spelling(states, state)
    wanted = read_states(states)
    sort_jobs((), sort)
    line_of = (lambda job: job.name) if quiet else read_format(form) if form is not None else None
    folder = find_state(state)

    def chosen(jobs: Sequence[JobView]) -> list[JobView]:
        return sort_jobs(choose(jobs, names, wanted), sort)

    with ending_quietly():
        if watch:
            from trainerd.cli.followed_reader import FollowedReader

            is_view = sys.stdout.isatty() and line_of is None and not as_json  # its headline says so

            with FollowedReader(folder, says=not is_view) as client:
                client.daemon()
                _say(word)
                _watch(client, chosen, line_of, as_json=as_json)
        with reader(folder) as source:
            _say(word)
            jobs = chosen(source.list_jobs())
            if as_json:
                print_json(jobs)
            elif line_of is not None:
                for job in jobs:
                    click.echo(line_of(job))
            else:
                daemon = source.daemon() if isinstance(source, Client) else None
                is_filtered = bool(names or wanted)
                _show(jobs, daemon, folder, is_filtered=is_filtered)


def _old_spelling(
    states: tuple[str, ...], state_dir: Path | None
) -> tuple[tuple[str, ...], Path | None, str | None]:
    """Return states, folder and a word about it, where ``--state`` names the folder, as it once did."""
    folders = [
        text
        for text in states
        if text not in STATES and ("/" in text or text.startswith((".", "~")) or Path(text).is_dir())
    ]
    if state_dir is not None or len(folders) != 1:
        return states, state_dir, None
    word = f"--state of `ps` is a job's state now; taken as --state-dir {folders[0]}: write that"
    return tuple(text for text in states if text != folders[0]), Path(folders[0]), word


def _say(word: str | None) -> None:
    if word is not None:
        click.echo(word, err=True)


def _show(
    jobs: Sequence[JobView], daemon: DaemonView | None, state: StatePaths, *, is_filtered: bool
) -> None:
    lines = [] if daemon is None else remarks(daemon, is_empty=not jobs and not is_filtered)
    if not jobs and (is_filtered or daemon is None):
        lines.append("no such job" if is_filtered else f"no jobs in {state.root}")
    for line in lines:
        click.echo(line)
    if jobs:
        show_lines(fitting_lines(COLUMNS, job_rows(jobs, SystemClock().wall_s()), terminal_width()))


def remarks(daemon: DaemonView, *, is_empty: bool) -> list[str]:
    """Return what is to be said besides the table: that nothing can be decided, or that there is no job."""
    if daemon.journal_problem:
        return [f"deciding nothing: {one_line(daemon.journal_problem)}"]
    if daemon.preemption:
        return [one_line(daemon.preemption)]
    if is_empty:
        return [f"no jobs: drop a spec into {daemon.jobs_dir}, or use `trainerd submit`"]
    return []


def _watch(
    client: FollowedReader,
    chosen: Callable[[Sequence[JobView]], list[JobView]],
    line_of: Callable[[JobView], str] | None,
    *,
    as_json: bool,
) -> None:
    """Show the jobs until interrupted, whether a supervisor runs, comes or goes."""
    if as_json:
        while True:
            print_json_line({"jobs": chosen(client.list_jobs())})
            pause(WATCH_INTERVAL_S)
    chosen(client.list_jobs())  # no supervisor, or no job of a name, is an error now: nothing to wait for
    if not sys.stdout.isatty() or line_of is not None:
        _watch_lines(client, chosen, line_of)
    from rich.live import Live

    paces: dict[str, Pace] = {}
    console = make_console()
    is_plain = not _can_show(console, bar(0.99))
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            live.update(_glance(client, chosen, paces, is_plain=is_plain, width=console.width), refresh=True)
            pause(WATCH_INTERVAL_S)


def _watch_lines(
    client: FollowedReader,
    chosen: Callable[[Sequence[JobView]], list[JobView]],
    line_of: Callable[[JobView], str] | None,
) -> None:
    """Print a line for each job, and another for each change of it."""
    seen: dict[str, object] = {}
    while True:
        try:
            jobs = chosen(client.list_jobs())
        except TrainerdError:
            jobs = []  # it is being restarted, or a job is gone
        for job in jobs:
            what: object = (
                (job.state, job.attempt, job.reason, job.checkpoint_step) if line_of is None else line_of(job)
            )
            if seen.get(job.name) != what:
                seen[job.name] = what
                click.echo(event_line(job, SystemClock().wall_s()) if line_of is None else line_of(job))
        sys.stdout.flush()
        pause(WATCH_INTERVAL_S)


def _glance(
    client: FollowedReader,
    chosen: Callable[[Sequence[JobView]], list[JobView]],
    paces: dict[str, Pace],
    *,
    is_plain: bool,
    width: int,
) -> RenderableType:
    try:
        daemon, jobs = client.daemon(), chosen(client.list_jobs())
    except TrainerdError as error:
        return f"{error.message}; trying again"
    from rich.text import Text

    clock = SystemClock()
    for gone in paces.keys() - {job.name for job in jobs}:
        del paces[gone]
    for job in jobs:
        paces.setdefault(job.name, Pace()).see(job, clock.monotonic_s())
    head = headline(daemon) if daemon is not None else left_headline(jobs)
    lines = [Text(head, no_wrap=True, overflow="ellipsis")]
    if jobs:
        rows = watch_rows(jobs, paces, clock.wall_s(), is_plain=is_plain)
        lines += fitting_lines(WATCH_COLUMNS, rows, width)
    else:
        hint = "" if daemon is None else f": drop a spec into {daemon.jobs_dir}"
        lines.append(Text(f"no jobs{hint}"))
    return Text("\n", no_wrap=True).join(lines)


def left_headline(jobs: Sequence[JobView]) -> str:
    """Return in a line what runs without a supervisor."""
    alone = sum(job.state in LIVE for job in jobs)
    going = f"{counted(alone, 'job goes', 'jobs go')} on" if alone else "no job runs"
    return f"no supervisor is running · {going} · Ctrl-C ends the view"


def headline(daemon: DaemonView) -> str:
    """Return the supervisor in a line."""
    counts = (
        ", ".join(f"{count} {state}" for state, count in sorted(daemon.jobs_by_state.items())) or "no jobs"
    )
    if daemon.journal_problem:
        return f"deciding nothing: {one_line(daemon.journal_problem)}"
    if daemon.preemption:
        return f"trainerd {one_line(daemon.preemption)} · {counts}"
    how = "stopping" if daemon.is_stopping else "on hold: starts nothing" if daemon.is_on_hold else "running"
    return f"trainerd {how} · {counts} · Ctrl-C ends the view"


def _can_show(console: Console, text: str) -> bool:
    try:
        text.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
