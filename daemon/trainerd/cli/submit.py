"""`trainerd submit`: put specs into the jobs folder and learn what became of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.drill_first import DEFAULT_BUDGET, drilled_before, note_drill, seconds_of
from trainerd.cli.options import json_option, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.cli.plan import PlanView, jobs_by_name, placing_plan, show_plan
from trainerd.contract.clock import SystemClock
from trainerd.errors import TryAgainError

if TYPE_CHECKING:
    from trainerd.cli.client import Client
    from trainerd.contract.paths import StatePaths
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.supervisor.api.control import JobView
    from trainerd.supervisor.specs.placement import Placement

POLL_S: Final = 0.1
"""How often the supervisor is asked whether it has read a spec, in seconds."""
REFUSAL_S: Final = 1.0
"""A refusal that stands after so long is that of this spec, and not of the one before it, in seconds."""
ACKNOWLEDGEMENT_LIMIT_S: Final = 10.0
"""How long it may take to read it, in seconds."""


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--replace", is_flag=True, help="Take the place of a spec that gives the same job.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.option(
    "--drill", "drills", is_flag=True, help="Drill each job first; place nothing unless all are exact."
)
@click.option("--budget", default=DEFAULT_BUDGET, show_default=True, metavar="TIME", help="For each drill.")
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
    dry_run: bool,
    drills: bool,
    budget: str,
    wait: bool,
    state: StatePaths,
    as_json: bool,
) -> None:
    """Put specs into the jobs folder.

    They are checked, copied into the supervisor's jobs folder, and what it makes of them is shown.

    All specs are checked before the first is copied. A relative workdir keeps its meaning: it is made
    absolute. Copying a spec into the jobs folder by hand is as good.

    \b
    Example:
      trainerd submit jobs/examples/tiny/job.yaml
      trainerd submit job.yaml --replace --wait
      trainerd submit job.yaml --replace --dry-run
      trainerd submit job.yaml --drill
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.supervisor.specs.load import load_spec
    from trainerd.supervisor.specs.placement import place_spec, plan_placement

    if dry_run and wait:
        raise click.UsageError("with --dry-run there is nothing to wait for")
    if dry_run and drills:
        raise click.UsageError("--dry-run starts nothing, so it does not drill; run `trainerd drill SPEC`")
    if drills:
        seconds_of(budget)
    with ending_quietly(), Client(state) as client:
        jobs_dir = Path(client.daemon().jobs_dir)
        placements = [plan_placement(file, jobs_dir) for file in files]
        plans = _plans(client, placements, jobs_dir)
        if dry_run:
            if as_json:
                print_json([plan.as_plain() for plan in plans])
            for plan in () if as_json else plans:
                show_plan(plan)
            return
        for plan in plans:
            if plan.changes and not as_json:
                show_plan(plan, err=True)
        drilled = drilled_before(files, budget, context) if drills else ()
        placed = [place_spec(file, jobs_dir, replace=replace, say=_say) for file in files]
        accepted = [load_spec(path, trust=None) for path in placed]
        names = [spec.name for spec in accepted]
        for spec, report in zip(accepted, drilled, strict=False):
            note_drill(state, spec, report, say=_say)
        jobs = [_acknowledged(client, spec) for spec in accepted]
        if not as_json:
            for job in jobs:
                click.echo(f"{job.name}: {job.state}: {job.reason}")
        if wait:
            from trainerd.cli.waiting import wait_for_rest

            at_rest = wait_for_rest(client, names, shows_progress=not as_json)
            jobs = [at_rest[name] for name in names]
        if as_json:
            print_json(jobs)
        context.exit(0 if all(_went_well(job, wait=wait) for job in jobs) else 1)


def _plans(client: Client, placements: list[Placement], jobs_dir: Path) -> list[PlanView]:
    jobs = jobs_by_name(client)
    return [
        placing_plan(each.name, each.target, each.data, jobs_dir=jobs_dir, jobs=jobs, notes=each.changes)
        for each in placements
    ]


def _acknowledged(client: Client, spec: ResolvedJob) -> JobView:
    """Wait until the supervisor has taken note of a spec; return the job as it is then.

    A file that was just written is read once it has settled, so the first look may come too early.

    Raises:
        TryAgainError: It did not take note of it in time.
    """
    clock = SystemClock()
    began_s = clock.monotonic_s()
    while True:
        client.rescan()
        waited_s = clock.monotonic_s() - began_s
        job = next((job for job in client.list_jobs() if job.name == spec.name), None)
        if job is not None and job.spec_digest == spec.spec_digest:
            return job
        if job is not None and job.state == "rejected" and waited_s >= REFUSAL_S:
            return job
        if waited_s >= ACKNOWLEDGEMENT_LIMIT_S:
            raise TryAgainError(
                f"{spec.spec_path} is in place, but the supervisor has not accepted it within "
                f"{ACKNOWLEDGEMENT_LIMIT_S:.0f} s"
                + (f"; {job.name} is {job.state}: {job.reason}" if job else ""),
                hint="it says why in `trainerd ps` and `trainerd logs --daemon`",
            )
        time.sleep(POLL_S)


def _say(sentence: str) -> None:
    click.echo(f"note: {sentence}", err=True)


def _went_well(job: JobView, *, wait: bool) -> bool:
    return job.state == "finished" if wait else job.state != "rejected"
