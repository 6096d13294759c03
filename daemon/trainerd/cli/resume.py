"""`trainerd resume`: let jobs go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trainerd.cli.options import json_option, state_option
from trainerd.cli.output import ending_quietly, print_json

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@state_option
@json_option
def command(names: tuple[str, ...], state: StatePaths, as_json: bool) -> None:
    """Let jobs go on now.

    Stopped, parked, rejected, paused and backing-off jobs can.

    Each goes on from its newest valid checkpoint, with a full restart budget.

    \b
    Example:
      trainerd resume mnist
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client

    with ending_quietly(), Client(state) as client:
        jobs = [client.resume(name) for name in names]
        if as_json:
            print_json(jobs)
        else:
            for job in jobs:
                click.echo(f"{job.name}: {job.state}: {job.reason}")
