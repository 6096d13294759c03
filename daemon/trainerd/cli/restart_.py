"""`trainerd restart`: end what runs of jobs, and start them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.options import json_option, names_argument, state_option
from trainerd.cli.output import ending_quietly, print_json

if TYPE_CHECKING:
    from trainerd.cli.client import Client
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import JobView

_AT_REST: Final = frozenset({"stopped", "finished", "parked", "rejected"})


@click.command()
@names_argument
@click.option(
    "--fresh", is_flag=True, help="Begin a new run at step 0: the old one is moved aside, never deleted."
)
@state_option
@json_option
def command(names: tuple[str, ...], *, fresh: bool, state: StatePaths, as_json: bool) -> None:
    """Stop jobs and start them again, finished ones too.

    Each drains, and goes on from its newest checkpoint with a full restart budget. With --fresh it begins a
    new run; the old run folder is kept beside the new one as NAME.old-1, and is read like that of any job.

    \b
    Example:
      trainerd restart mnist
      trainerd restart mnist --fresh
      trainerd checkpoints mnist.old-1
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client

    with ending_quietly(), Client(state) as client:
        _stop(client, names, aloud=not as_json)
        if fresh:
            for name in names:
                _move_aside(state, name)
        jobs = [client.restart(name, fresh=fresh) for name in names]
        if as_json:
            print_json(jobs)
        else:
            for job in jobs:
                click.echo(f"{job.name}: {job.state}: {job.reason}")


def _stop(client: Client, names: tuple[str, ...], *, aloud: bool) -> dict[str, JobView]:
    """Stop what runs or waits, and return each job once nothing of it runs."""
    from trainerd.cli.waiting import wait_for_rest

    for name in names:
        if client.get_job(name).state not in _AT_REST:
            client.stop(name)
    return wait_for_rest(client, names, aloud=aloud)


def _move_aside(state: StatePaths, name: str) -> None:
    """Move the run of a job aside and say where it is.

    Raises:
        LockedError: An attempt of it may live, or another process writes to it.
        UserError: It cannot be moved.
    """
    from trainerd.checkpoint.run_aside import move_run_aside
    from trainerd.supervisor.purge import refuse_if_live

    run = state.run(name)
    refuse_if_live(run)
    place = move_run_aside(run)
    click.echo(
        f"{name}: the old run is kept in {place}" if place is not None else f"{name}: there is no old run",
        err=True,
    )
