"""`trainerd stop`: drain jobs and keep them stopped."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from trainerd.cli.job_names import may_stop
from trainerd.cli.options import json_option, names_argument_of, state_option
from trainerd.cli.output import ending_quietly, print_json

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths


@click.command()
@names_argument_of(may_stop)
@click.option(
    "--wait", is_flag=True, help="Return once the jobs have ended, not once the request is durable."
)
@click.option(
    "--now",
    is_flag=True,
    help="Send a second signal: save what is held in memory and leave in the middle of a step.",
)
@state_option
@json_option
def command(names: tuple[str, ...], wait: bool, now: bool, state: StatePaths, as_json: bool) -> None:
    """Drain jobs and keep them stopped.

    Each finishes its step, checkpoints and leaves, and stays stopped until it is resumed.

    The request survives the supervisor: a stopped job stays stopped after a restart.

    \b
    Example:
      trainerd stop mnist --wait
      trainerd stop mnist --now
      trainerd resume mnist
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.cli.each_name import EachName
    from trainerd.cli.waiting import wait_for_rest

    with ending_quietly(), Client(state) as client:
        each = EachName(names)
        jobs = each.ask(partial(client.stop, now=now))
        if wait:
            jobs = list(wait_for_rest(client, each.granted, shows_progress=not as_json).values())
        if as_json:
            print_json(jobs)
        elif not wait:
            for job in jobs:
                click.echo(f"{job.name}: {job.state}: {job.reason}")
        each.finish()
