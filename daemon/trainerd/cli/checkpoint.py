"""`trainerd checkpoint`: ask a running job to save now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.job_names import complete_names_of, is_in
from trainerd.cli.options import json_option, state_option
from trainerd.cli.output import print_json

if TYPE_CHECKING:
    from trainerd.checkpoint.store import Checkpoint, CheckpointStore
    from trainerd.contract.paths import StatePaths

POLL_S: Final = 0.1
"""How often the run folder is looked at, in seconds."""


@click.command()
@click.argument("name", shell_complete=complete_names_of(is_in("running")))
@click.option(
    "--wait",
    "wait_s",
    default=60.0,
    show_default=True,
    help="Seconds to wait for the checkpoint; 0 only asks.",
)
@state_option
@json_option
def command(*, name: str, wait_s: float, state: StatePaths, as_json: bool) -> None:
    """Ask a running job for a checkpoint at its next step.

    Returns once it is durable.

    \b
    Example:
      trainerd checkpoint mnist
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.checkpoint.store import CheckpointStore
    from trainerd.cli.client import Client
    from trainerd.contract.folder_owner import acting_as_owner_of
    from trainerd.contract.request_page import ask_for_checkpoint
    from trainerd.errors import TryAgainError, UserError

    with Client(state) as client:
        job = client.get_job(name)
    if job.state != "running":
        raise UserError(f"{name} is {job.state}: only a running job can be asked to save")
    run = state.run(name)
    store = CheckpointStore.of_run(run)
    before = _newest(store)
    with acting_as_owner_of(run.root):
        ask_for_checkpoint(run.attempt(job.attempt).requests)
    deadline_s = time.monotonic() + wait_s
    while (made := _newest(store)) is None or (before is not None and made.place <= before.place):
        if time.monotonic() >= deadline_s:
            if wait_s == 0:
                made = None
                break
            raise TryAgainError(
                f"{name} was asked, and has not saved within {wait_s:g} s",
                hint="it saves at its next step; see `trainerd checkpoints` later, or wait longer with "
                "--wait",
            )
        time.sleep(POLL_S)
    if as_json:
        print_json({"job": name, "checkpoint": made.name if made else None})
    else:
        click.echo(f"{name}: {made.name} is durable" if made else f"{name}: asked")


def _newest(store: CheckpointStore) -> Checkpoint | None:
    return next(reversed(store.checkpoints()), None)
