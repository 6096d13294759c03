"""`trainerd rm`: take jobs away; their runs stay unless they are to be deleted too."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.human import size
from trainerd.cli.options import json_option, names_argument, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.cli.plan import PlanView, jobs_by_name, show_plan
from trainerd.errors import TryAgainError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.cli.client import Client
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import JobView

POLL_S: Final = 0.2
"""How often the supervisor is asked whether the jobs are forgotten, in seconds."""


@click.command()
@names_argument
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.option("--purge", is_flag=True, help="Delete the run folders too: checkpoints, metrics, logs.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before deleting run folders.")
@click.option(
    "--no-wait", is_flag=True, help="Return once the specs are deleted, not once the jobs have ended."
)
@state_option
@json_option
def command(
    *,
    names: tuple[str, ...],
    dry_run: bool,
    purge: bool,
    yes: bool,
    no_wait: bool,
    state: StatePaths,
    as_json: bool,
) -> None:
    """Remove jobs: delete their specs, drain what runs.

    The run folder stays: submit the spec again, and the run continues from its last checkpoint. With
    --purge it is deleted permanently, once no process of the job runs.

    \b
    Example:
      trainerd rm mnist
      trainerd rm mnist --dry-run
      trainerd rm mnist --purge --yes
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.supervisor.purge import purge_run
    from trainerd.supervisor.specs.remove import remove_specs

    if purge and no_wait:
        raise click.UsageError("--purge has to wait: a run folder is not deleted under a job that drains")
    names = tuple(dict.fromkeys(names))
    with ending_quietly(), Client(state) as client:
        plans = [_plan(client, state, name, purge=purge) for name in names]
        if not as_json or dry_run:
            for plan in plans:
                show_plan(plan, err=as_json)
        if not dry_run:
            if purge and not yes:
                _confirm(names)
            remove_specs(names, Path(client.daemon().jobs_dir))
            client.rescan()
            if not no_wait:
                _wait_until_forgotten(client, names, shows_progress=not as_json)
            if purge:
                for name in names:
                    purge_run(state.run(name))
        if as_json:
            print_json([plan.as_plain() for plan in plans])
        elif not dry_run and not no_wait:
            click.echo(f"{', '.join(names)}: {'removed and deleted' if purge else 'removed'}")


def _plan(client: Client, state: StatePaths, name: str, *, purge: bool) -> PlanView:
    from trainerd.cli.changes import after_removing
    from trainerd.supervisor.purge import run_bytes
    from trainerd.supervisor.specs.jobs_dir import specs_of

    job = client.get_job(name)
    run = state.run(name)
    if not purge:
        note = f"its run folder stays: {job.run_dir}"
    elif run.root.is_dir():
        note = f"its run folder is deleted for good: {job.run_dir} ({size(run_bytes(run))})"
    else:
        note = "it has no run folder yet"
    files = [str(path) for path in specs_of(name, Path(client.daemon().jobs_dir))] or [job.spec_path]
    return PlanView(name, tuple(f"- {file}" for file in files if file), after_removing(job), (note,))


def _confirm(names: Sequence[str]) -> None:
    if not sys.stdin.isatty():
        raise UserError(
            "there is no terminal on which to confirm that run folders are deleted", hint="give --yes"
        )
    click.confirm(f"delete the runs of {', '.join(names)} for good?", abort=True, err=True)


def _wait_until_forgotten(client: Client, names: Sequence[str], *, shows_progress: bool) -> None:
    """Wait until the supervisor knows none of the jobs any more; a drain takes its grace period at most.

    Raises:
        TryAgainError: A job is back: it was submitted meanwhile.
    """
    from trainerd.cli.waiting import patiently

    def look() -> dict[str, JobView]:
        client.rescan()
        return jobs_by_name(client)

    shown: dict[str, str] = {}
    while True:
        left = [job for name, job in patiently(look).items() if name in names]
        for job in left:
            if shows_progress and job.state == "draining" and shown.get(job.name) != job.state:
                click.echo(f"{job.name}: {job.state}: {job.reason}", err=True)
                shown[job.name] = job.state
            if job.state in {"queued", "starting", "running"} and job.name in shown:
                raise TryAgainError(f"{job.name} is back: its spec was placed again meanwhile")
        if not left:
            return
        time.sleep(POLL_S)
