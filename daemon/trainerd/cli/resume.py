"""`trainerd resume`: let jobs go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trainerd.cli.job_names import may_resume
from trainerd.cli.options import json_option, names_argument_of, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.checkpoint.store import CheckpointStore
    from trainerd.cli.client import Client
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import JobView


@click.command()
@names_argument_of(may_resume, is_any_needed=False)
@click.option(
    "--all", "everything", is_flag=True, help="End `trainerd drain`: let the supervisor start jobs again."
)
@click.option(
    "--from",
    "from_checkpoint",
    metavar="CHECKPOINT",
    help="Go back to an older checkpoint, such as 120; newer ones are set aside. Resuming from "
    "one of those undoes it.",
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
    """Continue jobs now.

    For stopped, held, parked, rejected, paused and backing-off jobs.

    Each continues from its newest valid checkpoint, with a full restart budget.

    \b
    Example:
      trainerd resume mnist
      trainerd resume mnist --from step-120
      trainerd resume mnist --from step-360
      trainerd resume --all
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.cli.each_name import EachName

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
        each = EachName(names)
        if from_checkpoint is not None:
            each.ask(lambda name: _go_back(client, state, name, from_checkpoint))
        jobs = each.ask(lambda name: _go_on(client, name, is_back=from_checkpoint is not None))
        if as_json:
            print_json(jobs)
        else:
            for job in jobs:
                click.echo(f"{job.name}: {job.state}: {job.reason}")
        each.finish()


def _go_on(client: Client, name: str, *, is_back: bool) -> JobView:
    """Resume a job; one that was complete, and that has gone back, is not complete any more."""
    is_complete = is_back and client.get_job(name).state == "finished"
    return client.restart(name) if is_complete else client.resume(name)


def _go_back(client: Client, state: StatePaths, name: str, which: str) -> None:
    """Set aside what is newer than a checkpoint, or take back one that was set aside, after verifying it.

    Raises:
        UserError: The job runs, or there is no such checkpoint.
        CorruptError: It does not verify; nothing was changed.
        LockedError: Another process trains this run.
    """
    from trainerd.checkpoint.store import CheckpointStore
    from trainerd.cli.run_folder import find_run
    from trainerd.contract.folder_owner import acting_as_owner_of

    job = client.get_job(name)
    if job.state in {"starting", "running", "draining"}:
        raise UserError(f"{name} is {job.state}", hint=f"stop it first: trainerd stop {name} --wait")
    run = find_run(state, name)
    store = CheckpointStore.of_run(run)
    with acting_as_owner_of(run.root), store.lock():
        store.take_over()  # an attempt on another machine would save what is newer again
        store.sweep()
        chosen, left = _choose(store, which)
    aside = ", ".join(left) or "nothing"
    click.echo(f"{name}: goes on from {chosen}; set aside: {aside}", err=True)
    if left:
        click.echo(f"{name}: to undo that: trainerd resume {name} --from {left[-1]}", err=True)


def _choose(store: CheckpointStore, which: str) -> tuple[str, tuple[str, ...]]:
    """Make a checkpoint the newest one; return its name, and the names of those that were set aside.

    Raises:
        UserError: There is no such checkpoint, in place or set aside.
        CorruptError: It does not verify; nothing was changed.
    """
    from trainerd.checkpoint.taking_back import find_set_aside, take_back

    try:
        checkpoint = store.find(which)
    except UserError as error:
        aside = find_set_aside(store, which)
        if aside is None:
            there = ", ".join(each.path.name for each in store.abandoned())
            error.hint = f"{error.hint}; set aside: {there}" if there else error.hint
            raise
        taken = take_back(store, aside)
        return taken.brought[-1], taken.left
    store.verify(checkpoint)
    return checkpoint.name, store.set_aside_after(checkpoint, f"the run went back to {checkpoint.name}")
