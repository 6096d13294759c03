"""`trainerd restart`: end what runs of jobs, and start them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.options import json_option, names_argument, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.errors import TrainerdError, UserError

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.cli.client import Client
    from trainerd.contract.paths import RunPaths, StatePaths
    from trainerd.supervisor.api.control import JobView

_AT_REST: Final = frozenset({"stopped", "finished", "parked", "rejected"})
"""States of rest in which no attempt may live, unlike `faulted`."""


@click.command()
@names_argument
@click.option(
    "--fresh", is_flag=True, help="Begin a new run at step 0: the old one is moved aside, never deleted."
)
@state_option
@json_option
def command(names: tuple[str, ...], *, fresh: bool, state: StatePaths, as_json: bool) -> None:
    """Stop jobs and start them again, finished ones too.

    Each drains, and continues from its newest checkpoint with a full restart budget. With --fresh it begins a
    new run; the old run folder is kept beside the new one as NAME.old-1, and is read like that of any job.

    \b
    Example:
      trainerd restart mnist
      trainerd restart mnist --fresh
      trainerd checkpoints mnist.old-1
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.cli.each_name import EachName
    from trainerd.cli.waiting import wait_for_rest

    with ending_quietly(), Client(state) as client:
        each = EachName(names)
        each.ask(client.check_restart)  # a job that would not start again is not stopped either
        if fresh:
            each.finish(is_done=False)  # no run is moved aside by a request that is refused in part
            jobs = each.ask(lambda name: _begin_again(client, state, name, shows_progress=not as_json))
        else:
            each.ask(lambda name: _ask_to_stop(client, name))
            wait_for_rest(client, each.granted, shows_progress=not as_json)
            jobs = each.ask(client.restart)
        if as_json:
            print_json(jobs)
        else:
            for job in jobs:
                click.echo(f"{job.name}: {job.state}: {job.reason}")
        each.finish()


def _ask_to_stop(client: Client, name: str) -> None:
    """Stop what runs or waits."""
    if client.get_job(name).state not in _AT_REST:
        client.stop(name)


def _begin_again(client: Client, state: StatePaths, name: str, *, shows_progress: bool) -> JobView:
    """Stop a job, move its run aside and start it again; if that is refused, give the run back.

    Raises:
        LockedError: An attempt of it may live, or another process writes to its run.
        TrainerdError: Its run cannot be moved, or the supervisor refuses or does not answer.
    """
    from trainerd.checkpoint.run_aside import move_run_aside
    from trainerd.cli.waiting import wait_for_rest
    from trainerd.contract.folder_owner import acting_as_owner_of
    from trainerd.supervisor.purge import refuse_if_live

    _ask_to_stop(client, name)
    wait_for_rest(client, (name,), shows_progress=shows_progress)
    run = state.run(name)
    refuse_if_live(run)
    with acting_as_owner_of(state.root):
        place = move_run_aside(run)
    try:
        job = client.restart(name, fresh=True)
    except TrainerdError as error:
        if place is not None:
            error.hint = " ".join(filter(None, (error.hint, _given_back(client, run, place, error))))
        raise
    click.echo(
        f"{name}: the old run is kept in {place}" if place is not None else f"{name}: there is no old run",
        err=True,
    )
    return job


def _given_back(client: Client, run: RunPaths, place: Path, error: TrainerdError) -> str:
    """Give a run back unless a new one may have begun, and return a sentence that says where it is."""
    from trainerd.checkpoint.run_aside import give_run_back
    from trainerd.contract.folder_owner import acting_as_owner_of

    # Where the answer was lost, the request may have been granted: the state of the job tells.
    if isinstance(error, UserError) or _is_at_rest(client, run.root.name):
        with acting_as_owner_of(place):
            if give_run_back(run, place):
                return f"(the run is in {run.root} as before)"
    return f"(the old run is kept in {place})"


def _is_at_rest(client: Client, name: str) -> bool:
    try:
        return client.get_job(name).state in _AT_REST
    except TrainerdError:
        return False
