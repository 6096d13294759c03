"""`trainerd resume`: let jobs go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trainerd.cli.options import json_option, names_argument_or_all, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.cli.client import Client
    from trainerd.contract.paths import StatePaths


@click.command()
@names_argument_or_all
@click.option(
    "--all", "everything", is_flag=True, help="End `trainerd drain`: let the supervisor start jobs again."
)
@click.option(
    "--from",
    "from_checkpoint",
    metavar="CHECKPOINT",
    help="Go back to an older checkpoint, such as 120; newer ones are set aside, never picked up again.",
)
@state_option
@json_option
def command(
    *,
    names: tuple[str, ...],
    everything: bool,
    from_checkpoint: str | None,
    state: StatePaths,
    as_json: bool,
) -> None:
    """Let jobs go on now.

    Stopped, held, parked, rejected, paused and backing-off jobs can.

    Each goes on from its newest valid checkpoint, with a full restart budget.

    \b
    Example:
      trainerd resume mnist
      trainerd resume mnist --from step-120
      trainerd resume --all
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client

    if everything == bool(names):
        raise click.UsageError("name the jobs, or give --all to end `trainerd drain`")
    with ending_quietly(), Client(state) as client:
        if everything:
            client.release_all()
            if as_json:
                print_json(client.list_jobs())
            else:
                click.echo("jobs are started again; those that were held or stopped one by one stay so")
            return
        if from_checkpoint is not None:
            for name in names:
                _go_back(client, state, name, from_checkpoint)
        jobs = [client.resume(name) for name in names]
        if as_json:
            print_json(jobs)
        else:
            for job in jobs:
                click.echo(f"{job.name}: {job.state}: {job.reason}")


def _go_back(client: Client, state: StatePaths, name: str, which: str) -> None:
    """Set aside what is newer than a checkpoint, after verifying it.

    Raises:
        UserError: The job runs, or there is no such checkpoint.
        CorruptError: It does not verify; nothing was changed.
        LockedError: Somebody trains this run.
    """
    from trainerd.checkpoint.store import CheckpointStore
    from trainerd.cli.run_folder import find_run

    job = client.get_job(name)
    if job.state in {"starting", "running", "draining"}:
        raise UserError(f"{name} is {job.state}", hint=f"stop it first: trainerd stop {name} --wait")
    run = find_run(state, name)
    store = CheckpointStore.of_run(run)
    with store.lock():
        store.sweep()
        checkpoint = store.find(which)
        store.verify(checkpoint)
        left = store.set_aside_after(checkpoint, f"the run went back to {checkpoint.name}")
    click.echo(f"{name}: goes on from {checkpoint.name}; set aside: {', '.join(left) or 'nothing'}", err=True)
