"""`trainerd retry`: try jobs again that were given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trainerd.cli.job_names import is_in
from trainerd.cli.options import json_option, names_argument_of, state_option
from trainerd.cli.output import ending_quietly, print_json

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths


@click.command()
@names_argument_of(is_in("parked", "rejected", "backing-off", "paused"))
@state_option
@json_option
def command(names: tuple[str, ...], state: StatePaths, as_json: bool) -> None:
    """Try parked and rejected jobs again.

    They get a full restart budget.

    A job that waits for its next attempt, or for room on the disk, is tried at once. A stopped job is left
    alone: resume it.

    \b
    Example:
      trainerd retry mnist
      trainerd ps --json | jq -r '.[] | select(.state == "parked") | .name' | xargs trainerd retry
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.cli.each_name import EachName

    with ending_quietly(), Client(state) as client:
        each = EachName(names)
        jobs = each.ask(client.retry)
        if as_json:
            print_json(jobs)
        else:
            for job in jobs:
                click.echo(f"{job.name}: {job.state}: {job.reason}")
        each.finish()
