"""`trainerd ps`: all jobs at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.human import NOTHING, duration, epochs_done, number
from trainerd.cli.options import json_option, state_option
from trainerd.cli.output import (
    STATE_STYLES,
    cut,
    ending_quietly,
    make_console,
    make_table,
    pause,
    print_json,
    print_json_line,
    show,
)
from trainerd.cli.progress import Pace, bar, share_done
from trainerd.contract.clock import SystemClock
from trainerd.contract.safe_text import one_line
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console, RenderableType
    from rich.table import Table

    from trainerd.cli.client import Client
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import DaemonView, JobView

WATCH_INTERVAL_S: Final = 1.0

_WATCH_HEADINGS: Final = ("NAME", "STATE", "PROGRESS", "DONE", "LEFT", "STEP", "LOSS", "SINCE", "REASON")
_WATCH_NUMBERS: Final = ("DONE", "LEFT", "STEP", "LOSS", "SINCE")
_HEADINGS: Final = ("NAME", "STATE", "EPOCH", "STEP", "LOSS", "CHECKPOINT", "ATTEMPT", "SINCE", "REASON")
_NUMBERS: Final = ("EPOCH", "STEP", "LOSS", "CHECKPOINT", "ATTEMPT", "SINCE")


@click.command()
@state_option
@json_option
@click.option("--watch", "-w", is_flag=True, help="Show it again every second, until Ctrl-C.")
def command(state: StatePaths, as_json: bool, watch: bool) -> None:
    """Show all jobs: where each one is, and why.

    EPOCH counts the epochs that are done, of how many: 1.30/10 is in the second. CHECKPOINT is the step of
    the newest one: what a crash now would go back to. --watch shows a bar and the time that is left at the
    pace seen.

    \b
    Example:
      trainerd ps
      trainerd ps --watch
      trainerd ps --json | jq -r '.[] | select(.state == "parked") | .name'
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client

    with ending_quietly(), Client(state) as client:
        if watch:
            _watch(client, as_json=as_json)
        elif as_json:
            print_json(client.list_jobs())
        else:
            jobs, daemon = client.list_jobs(), client.daemon()
            for line in remarks(daemon, is_empty=not jobs):
                click.echo(line)
            if jobs:
                show(job_table(jobs, SystemClock().wall_s()))


def remarks(daemon: DaemonView, *, is_empty: bool) -> list[str]:
    """Return what is to be said besides the table: that nothing can be decided, or that there is no job."""
    if daemon.journal_problem:
        return [f"deciding nothing: {one_line(daemon.journal_problem)}"]
    if is_empty:
        return [f"no jobs: drop a spec into {daemon.jobs_dir}, or use `trainerd submit`"]
    return []


def job_table(jobs: tuple[JobView, ...], now_s: float) -> Table:
    """Return one row a job."""
    table = make_table(*_HEADINGS, right=_NUMBERS, flexible="REASON")
    for job in jobs:
        table.add_row(
            job.name,
            _styled(job.state),
            epochs_done(job.epoch, job.epochs, job.batch, job.batches),
            number(job.step),
            number(job.loss),
            number(job.checkpoint_step),
            str(job.attempt) if job.attempt else NOTHING,
            duration(now_s - job.since_wall_s),
            cut(reason_now(job, now_s)),
        )
    return table


def reason_now(job: JobView, now_s: float) -> str:
    """Return why a job is in its state, and while it waits for its next attempt, for how long."""
    if job.retry_at_wall_s is None or job.state != "backing-off":
        return job.reason
    return f"next attempt in {duration(job.retry_at_wall_s - now_s)}: {job.reason}"


def _styled(state: str) -> RenderableType:
    from rich.text import Text

    return Text(state, style=STATE_STYLES.get(state, ""))


def _watch(client: Client, *, as_json: bool) -> None:
    """Show the jobs until interrupted; a supervisor that is away for a while is waited for."""
    from rich.live import Live

    if as_json:
        while True:
            print_json_line({"jobs": [*client.list_jobs()]})
            pause(WATCH_INTERVAL_S)
    client.daemon()  # none at all is an error now, and not something to wait for
    paces: dict[str, Pace] = {}
    console = make_console()
    is_plain = not _can_show(console, bar(0.99))
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            live.update(_glance(client, paces, is_plain=is_plain), refresh=True)
            pause(WATCH_INTERVAL_S)


def _glance(client: Client, paces: dict[str, Pace], *, is_plain: bool) -> RenderableType:
    try:
        daemon, jobs = client.daemon(), client.list_jobs()
    except TrainerdError as error:
        return f"{error.message}; trying again"
    from rich.console import Group

    clock = SystemClock()
    for gone in paces.keys() - {job.name for job in jobs}:
        del paces[gone]
    for job in jobs:
        paces.setdefault(job.name, Pace()).see(job, clock.monotonic_s())
    head = headline(daemon)
    if not jobs:
        return Group(head, f"no jobs: drop a spec into {daemon.jobs_dir}")
    return Group(head, watch_table(jobs, paces, clock.wall_s(), is_plain=is_plain))


def headline(daemon: DaemonView) -> str:
    """Return the supervisor in a line."""
    counts = (
        ", ".join(f"{count} {state}" for state, count in sorted(daemon.jobs_by_state.items())) or "no jobs"
    )
    if daemon.journal_problem:
        return f"deciding nothing: {one_line(daemon.journal_problem)}"
    how = "stopping" if daemon.is_stopping else "on hold: starts nothing" if daemon.is_on_hold else "running"
    return f"trainerd {how} · {counts} · Ctrl-C ends the view"


def watch_table(
    jobs: Sequence[JobView], paces: Mapping[str, Pace], now_s: float, *, is_plain: bool = False
) -> Table:
    """Return one row a job, with how far it is and how long it will take."""
    from rich.text import Text

    table = make_table(*_WATCH_HEADINGS, right=_WATCH_NUMBERS, flexible="REASON")
    for job in jobs:
        share = share_done(job)
        left_s = paces[job.name].left_s() if job.name in paces else None
        style = STATE_STYLES.get(job.state, "")
        table.add_row(
            job.name,
            _styled(job.state),
            Text(bar(share, is_plain=is_plain) if share is not None else NOTHING, style=style),
            f"{share:.0%}" if share is not None else NOTHING,
            duration(left_s) if left_s is not None else NOTHING,
            number(job.step),
            number(job.loss),
            duration(now_s - job.since_wall_s),
            cut(reason_now(job, now_s)),
        )
    return table


def _can_show(console: Console, text: str) -> bool:
    try:
        text.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
