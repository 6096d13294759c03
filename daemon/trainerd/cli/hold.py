"""`trainerd hold`: keep jobs from being started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trainerd.cli.job_names import may_hold
from trainerd.cli.options import json_option, names_argument_of, state_option
from trainerd.cli.output import ending_quietly, print_json

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths


@click.command()
@names_argument_of(may_hold)
@state_option
@json_option
def command(names: tuple[str, ...], state: StatePaths, as_json: bool) -> None:
    """Keep jobs from being started until they are resumed.

    A job that runs drains first. A held job keeps its state and its place in the queue, and no change of its
    spec or its script starts it. The request survives the supervisor.

    \b
    Example:
      trainerd hold mnist
      trainerd resume mnist
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.cli.each_name import EachName

    with ending_quietly(), Client(state) as client:
        each = EachName(names)
        jobs = each.ask(client.hold)
        if as_json:
            print_json(jobs)
        else:
            for job in jobs:
                click.echo(f"{job.name}: {job.state}, held: {job.reason}")
        each.finish()
