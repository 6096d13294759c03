"""`trainerd pin`: keep a checkpoint for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trainerd.cli.options import json_option, name_argument, state_option
from trainerd.cli.output import print_json

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths


@click.command()
@name_argument
@click.argument("checkpoint")
@click.option("--note", default="", help="Why; shown by `trainerd checkpoints`.")
@click.option("--remove", is_flag=True, help="Remove the pin: retention decides again.")
@state_option
@json_option
def command(*, name: str, checkpoint: str, note: str, remove: bool, state: StatePaths, as_json: bool) -> None:
    """Keep a checkpoint whatever retention decides.

    CHECKPOINT is its step, such as 120, or its full name.

    \b
    Example:
      trainerd pin mnist 120 --note "in the paper"
      trainerd pin mnist 120 --remove
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.checkpoint.store import CheckpointStore
    from trainerd.cli.run_folder import find_run
    from trainerd.contract.folder_owner import acting_as_owner_of

    run = find_run(state, name)
    store = CheckpointStore.of_run(run)
    found = store.find(checkpoint)
    with acting_as_owner_of(run.root):
        if remove:
            store.unpin(found.name)
        else:
            store.pin(found.name, note)
    if as_json:
        print_json({"job": name, "checkpoint": found.name, "is_pinned": not remove, "note": note})
    else:
        click.echo(f"{name}: {found.name} is {'left to retention again' if remove else 'kept for good'}")
