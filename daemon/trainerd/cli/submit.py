"""`trainerd submit`: put specs into the jobs folder and learn what became of them."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from trainerd.cli.ad_hoc import (
    name_of_command,
    read_variables,
    spec_of_command,
    write_given,
    write_spec,
)
from trainerd.cli.drill_first import DEFAULT_BUDGET, drilled_before, note_drill, seconds_of
from trainerd.cli.options import json_option, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.cli.plan import PlanView, jobs_by_name, placing_plan, show_plan
from trainerd.contract.clock import SystemClock
from trainerd.contract.names import check_name
from trainerd.errors import TryAgainError

if TYPE_CHECKING:
    from trainerd.cli.client import Client
    from trainerd.contract.paths import StatePaths
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.supervisor.api.control import JobView
    from trainerd.supervisor.specs.placement import Placement

COMMAND: Final = "trainerd.command"
"""Key of the context under which the words after ``--`` are kept."""

POLL_S: Final = 0.1
"""How often the supervisor is asked whether it has read a spec, in seconds."""
REFUSAL_S: Final = 1.0
"""A refusal that stands after so long is that of this spec, and not of the one before it, in seconds."""
ACKNOWLEDGEMENT_LIMIT_S: Final = 10.0
"""How long it may take to read it, in seconds."""


class SubmitCommand(click.Command):
    """A verb of which everything after ``--`` is the command of a job."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[COMMAND] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command(cls=SubmitCommand)
@click.argument(
    "files",
    nargs=-1,
    type=click.Path(path_type=Path, allow_dash=True, readable=False),
    metavar="FILE... | - | -- COMMAND...",
)
@click.option("--name", metavar="NAME", help="Name of the job, for - and for a COMMAND.")
@click.option("--workdir", type=click.Path(path_type=Path), metavar="DIR", help="Of a COMMAND.  [default: .]")
@click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs that a COMMAND asks for.")
@click.option("--cpus", type=click.FloatRange(min=0), metavar="N", help="Cores that a COMMAND asks for.")
@click.option("--memory", metavar="SIZE", help="Memory that a COMMAND asks for, such as 16GiB.")
@click.option("--nproc", type=click.IntRange(min=1), metavar="N", help="Ranks of a COMMAND.")
@click.option("--priority", type=int, metavar="N", help="Of a COMMAND; higher goes first.")
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="Variable for a COMMAND.")
@click.option("--replace", is_flag=True, help="Replace a spec of the same job.")
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
    name: str | None,
    workdir: Path | None,
    gpus: int | None,
    cpus: float | None,
    memory: str | None,
    nproc: int | None,
    priority: int | None,
    env: tuple[str, ...],
    replace: bool,
    dry_run: bool,
    drills: bool,
    budget: str,
    wait: bool,
    state: StatePaths,
    as_json: bool,
) -> None:
    """Put specs into the jobs folder.

    The specs are checked and copied into the supervisor's jobs folder, and the state of the jobs is shown.

    All specs are checked before the first is copied. A relative workdir keeps its meaning: it is made
    absolute. Copying a spec into the jobs folder by hand submits it too. A COMMAND after -- becomes a spec
    there that runs it in this folder, with the interpreter that this shell would start; - reads a spec from
    standard input.

    \b
    Example:
      trainerd submit jobs/examples/tiny/job.yaml
      trainerd submit job.yaml --replace --wait
      trainerd submit job.yaml --replace --dry-run
      trainerd submit job.yaml --drill
      trainerd submit -- python train.py --lr 0.1
      trainerd submit --name lr-1 --gpus 1 -- python train.py --lr 1
      generate-spec | trainerd submit - --name night
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
    words: tuple[str, ...] | None = context.meta.get(COMMAND)
    fields = _fields(gpus, cpus, memory) | {"nproc": nproc, "priority": priority, "env": read_variables(env)}
    fields["workdir"] = str(workdir.absolute()) if workdir is not None else None
    _check_sources(files, words, name=name, has_fields=any(fields.values()))
    with ending_quietly(), Client(state) as client, tempfile.TemporaryDirectory() as folder:
        jobs_dir = Path(client.daemon().jobs_dir)
        files = _sources(files, words, name, fields, client=client, folder=Path(folder))
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
        drilled = drilled_before(files, placements, budget, context, state=state, say=_say) if drills else ()
        placed = [place_spec(file, jobs_dir, replace=replace, say=_say) for file in files]
        accepted = [load_spec(path, trust=None) for path in placed]
        names = [spec.name for spec in accepted]
        for spec, report in zip(accepted, drilled, strict=False):
            note_drill(state, spec, report, say=_say)
        jobs = [acknowledged(client, spec) for spec in accepted]
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


def _fields(gpus: int | None, cpus: float | None, memory: str | None) -> dict[str, Any]:
    """Return the fields of a spec that say what its command asks for."""
    asked = {"gpus": gpus, "cpus": cpus, "memory": memory}
    return {"resources": {key: value for key, value in asked.items() if value is not None}}


def _sources(
    files: tuple[Path, ...],
    words: tuple[str, ...] | None,
    name: str | None,
    fields: dict[str, Any],
    *,
    client: Client,
    folder: Path,
) -> tuple[Path, ...]:
    """Return the specs to place; of a command and of standard input, one that is written into `folder`."""
    if words is not None:
        named = name or name_of_command(words, {job.name for job in client.list_jobs()})
        return (write_spec(folder, named, spec_of_command(words, **fields)),)
    if files == (Path("-"),):
        from trainerd.supervisor.specs.document import BYTES_MAX

        # One more than is allowed, so that a longer one is refused, not cut.
        return (write_given(folder, sys.stdin.buffer.read(BYTES_MAX + 1), name),)
    return files


def _check_sources(
    files: tuple[Path, ...], words: tuple[str, ...] | None, *, name: str | None, has_fields: bool
) -> None:
    """Refuse what does not go together.

    Raises:
        UsageError: It does not.
    """
    if words is not None and (files or not words):
        raise click.UsageError("after -- comes the command of one job; files are submitted without it")
    if words is None and not files:
        raise click.UsageError("name specs, - for standard input, or a command after --")
    if Path("-") in files and len(files) > 1:
        raise click.UsageError("- stands for the only spec")
    if words is None and has_fields:
        raise click.UsageError("--gpus and its like are for a COMMAND after --; a spec has fields for them")
    if name is not None:
        check_name(name)
    if words is None and name is not None and files != (Path("-"),):
        raise click.UsageError("--name is for - and for a COMMAND; a spec has a field name")


def _plans(client: Client, placements: list[Placement], jobs_dir: Path) -> list[PlanView]:
    jobs = jobs_by_name(client)
    return [
        placing_plan(each.name, each.target, each.data, jobs_dir=jobs_dir, jobs=jobs, notes=each.changes)
        for each in placements
    ]


def acknowledged(client: Client, spec: ResolvedJob) -> JobView:
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
