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
from trainerd.contract.clock import SystemClock
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from trainerd.cli.client import Client
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.control import JobView

WATCH_INTERVAL_S: Final = 1.0

_HEADINGS: Final = ("NAME", "STATE", "EPOCH", "STEP", "LOSS", "CHECKPOINT", "ATTEMPT", "SINCE", "REASON")
_NUMBERS: Final = ("EPOCH", "STEP", "LOSS", "CHECKPOINT", "ATTEMPT", "SINCE")


@click.command()
@state_option
@json_option
@click.option("--watch", "-w", is_flag=True, help="Show it again every second, until Ctrl-C.")
def command(state: StatePaths, as_json: bool, watch: bool) -> None:
    """Show all jobs: where each one is, and why.

    EPOCH counts the epochs that are done, of how many: 1.30/10 is in the second. CHECKPOINT is the step of the
    newest one: what a crash now would go back to.

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
        elif jobs := client.list_jobs():
            show(job_table(jobs, SystemClock().wall_s()))
        else:
            click.echo(f"no jobs: drop a spec into {client.daemon().jobs_dir}, or use `trainerd submit`")


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
    with Live(console=make_console(), auto_refresh=False) as live:
        while True:
            live.update(_glance(client), refresh=True)
            pause(WATCH_INTERVAL_S)


def _glance(client: Client) -> RenderableType:
    try:
        jobs = client.list_jobs()
    except TrainerdError as error:
        return f"{error.message}; trying again"
    return job_table(jobs, SystemClock().wall_s()) if jobs else "no jobs"
