"""`trainerd drain`: let attempts save and leave, and wait until they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trainerd.cli.options import json_option, names_argument_or_all, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.contract.counted import counted

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths


@click.command()
@names_argument_or_all
@click.option(
    "--no-wait", is_flag=True, help="Return once the request is durable, not once the jobs have ended."
)
@state_option
@json_option
def command(names: tuple[str, ...], no_wait: bool, state: StatePaths, as_json: bool) -> None:
    """Let jobs save and exit, and start no job.

    Without a NAME, all jobs: the supervisor still watches and answers, but starts no job, also after a
    restart, until `trainerd resume --all`. With names, these jobs are drained and held.

    \b
    Example:
      trainerd drain                 # before work on the machine
      trainerd resume --all          # after it
      trainerd drain mnist
      trainerd resume mnist
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.cli.each_name import EachName
    from trainerd.cli.waiting import wait_until_idle

    with ending_quietly(), Client(state) as client:
        each = EachName(names)
        if names:
            each.ask(client.hold)
        else:
            client.hold_all()
        if not no_wait and (each.granted or not names):
            wait_until_idle(client, each.granted, shows_progress=not as_json)
        jobs = [job for job in client.list_jobs() if job.name in each.granted or not names]
        if as_json:
            print_json(jobs)
            each.finish()
            return
        for job in jobs:
            if names or job.state == "draining":
                click.echo(f"{job.name}: {job.state}: {job.reason}")
        each.finish()
        if not names:
            left = sum(job.state in {"starting", "running", "draining"} for job in jobs)
            jobs_drain = counted(len(jobs), "job still drains", "jobs still drain")
            what = f"{left} of {jobs_drain}" if left else "no job runs"
            click.echo(f"{what}; nothing is started until `trainerd resume --all`")
