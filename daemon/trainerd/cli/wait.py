"""`trainerd wait`: return when jobs are where they are waited for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.durations import option_s
from trainerd.cli.job_query import STATES
from trainerd.cli.options import json_option, names_argument, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import JobView

TIMED_OUT: Final = 124
"""Exit code where the time was up first, as of ``timeout``."""

AT_REST: Final = "rest"
"""Any state that a job leaves only when a person does something."""

WAITED_FOR: Final = (AT_REST, *(state for state in STATES if state != "ended"))


def read_time(_context: object, _option: object, text: str | None) -> float | None:
    """Return the seconds of the option, None if it was not given."""
    return None if text is None else option_s("--timeout", text)


@click.command()
@names_argument
@click.option(
    "--for",
    "wanted",
    type=click.Choice(WAITED_FOR),
    default="finished",
    show_default=True,
    help="State to wait for.",
)
@click.option("--timeout", metavar="TIME", callback=read_time, help="Such as 90s or 5m.  [default: no limit]")
@state_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    names: tuple[str, ...],
    wanted: str,
    timeout: float | None,
    state: StatePaths,
    as_json: bool,
) -> None:
    """Wait until jobs have finished, or are in another state.

    Returns as soon as all jobs are there. A job that comes to rest in another state, such as parked, or is
    removed ends the wait with exit code 1; 124 means that the timeout has passed. The wait continues
    through restarts of the supervisor.

    \b
    Example:
      trainerd wait mnist
      trainerd wait mnist cifar --timeout 2h
      trainerd wait mnist --for running --timeout 1m
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.cli.waiting import POLL_S, RESTING, patiently

    deadline_s = None if timeout is None else time.monotonic() + timeout
    waiting = list(dict.fromkeys(names))
    there: dict[str, JobView] = {}
    missed: list[str] = []
    with ending_quietly(), Client(state) as client:
        for name in waiting:
            client.get_job(name)  # a name that is none is an error now
        while waiting:
            jobs = {job.name: job for job in patiently(client.list_jobs)}
            for name in tuple(waiting):
                job = jobs.get(name)
                if job is None:
                    raise UserError(f"{name} was removed while it was waited for")
                is_there = job.state in RESTING if wanted == AT_REST else job.state == wanted
                if is_there or job.state in RESTING:
                    waiting.remove(name)
                    there[name] = job
                    missed += [] if is_there else [name]
                    if not as_json:
                        click.echo(f"{name}: {job.state}: {job.reason}")
            if not waiting:
                break
            if deadline_s is not None and time.monotonic() >= deadline_s:
                click.echo(f"the time is up: {', '.join(waiting)} not {wanted}", err=True)
                break
            time.sleep(POLL_S)
        if as_json:
            print_json([there.get(name) or jobs[name] for name in dict.fromkeys(names)])
    context.exit(TIMED_OUT if waiting else 1 if missed else 0)
