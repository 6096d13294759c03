"""`trainerd submit`: put specs into the jobs folder and learn what became of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainerd.cli.options import json_option, state_option
from trainerd.cli.output import ending_quietly, print_json

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.control import JobView


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--replace", is_flag=True, help="Take the place of a spec that gives the same job.")
@click.option(
    "--wait", is_flag=True, help="Return once every job is at rest; exit with 1 unless all finished."
)
@state_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    files: tuple[Path, ...],
    replace: bool,
    wait: bool,
    state: StatePaths,
    as_json: bool,
) -> None:
    """Put specs into the jobs folder.

    They are checked, copied into the supervisor's jobs folder, and what it makes of them is shown.

    All specs are checked before the first is copied. A relative workdir keeps its meaning: it is made absolute.
    Copying a spec into the jobs folder by hand is as good.

    \b
    Example:
      trainerd submit jobs/examples/tiny/job.yaml
      trainerd submit job.yaml --replace --wait
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.supervisor.specs.load import load_spec
    from trainerd.supervisor.specs.submit import place_spec

    with ending_quietly(), Client(state) as client:
        jobs_dir = Path(client.daemon().jobs_dir)
        for file in files:
            load_spec(file, trust=None)
        placed = [place_spec(file, jobs_dir, replace=replace, say=_say) for file in files]
        client.rescan()
        names = [load_spec(path, trust=None).name for path in placed]
        jobs = [client.get_job(name) for name in names]
        if not as_json:
            for job in jobs:
                click.echo(f"{job.name}: {job.state}: {job.reason}")
        if wait:
            from trainerd.cli.waiting import wait_for_rest

            at_rest = wait_for_rest(client, names, aloud=not as_json)
            jobs = [at_rest[name] for name in names]
        if as_json:
            print_json(jobs)
        context.exit(0 if all(_went_well(job, wait=wait) for job in jobs) else 1)


def _say(sentence: str) -> None:
    click.echo(f"note: {sentence}", err=True)


def _went_well(job: JobView, *, wait: bool) -> bool:
    return job.state == "finished" if wait else job.state != "rejected"
