"""Shows beforehand what will happen to a job when its spec changes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from trainerd.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.cli.client import Client
    from trainerd.supervisor.api.control import JobView


@dataclass(frozen=True)
class PlanView:
    """What will happen to one job.

    Attributes:
        name: The job.
        changes: A line for each field of its spec that says something else.
        consequence: What becomes of the job, one sentence.
        notes: What else should be known, a sentence each.
    """

    name: str
    changes: tuple[str, ...]
    consequence: str
    notes: tuple[str, ...] = ()

    def as_plain(self) -> dict[str, Any]:
        """Return what ``--json`` shows."""
        return {
            "job": self.name,
            "changes": list(self.changes),
            "consequence": self.consequence,
            "notes": list(self.notes),
        }


def placing_plan(
    name: str,
    target: Path,
    data: bytes,
    *,
    jobs_dir: Path,
    jobs: dict[str, JobView],
    notes: tuple[str, ...] = (),
) -> PlanView:
    """Say what placing a spec will do.

    Args:
        name: Of the job.
        target: Where the spec will be.
        data: What it will say; valid.
        jobs_dir: The jobs folder, as it is now.
        jobs: All jobs, by name.
        notes: What is changed about the text on the way.
    """
    from trainerd.cli.changes import after_placing, field_changes
    from trainerd.supervisor.specs.jobs_dir import specs_of
    from trainerd.supervisor.specs.load import parse_spec, read_bytes

    after = parse_spec(target, data)
    before = None
    with contextlib.suppress(UserError, OSError):
        for path in specs_of(name, jobs_dir)[:1]:
            before = parse_spec(path, read_bytes(path, None)[0])
    changes = field_changes(before.spec if before is not None else None, after.spec)
    return PlanView(name, changes, after_placing(jobs.get(name), digest=after.digest), notes)


def show_plan(plan: PlanView, *, err: bool = False) -> None:
    """Print what will happen to a job, for people."""
    click.echo(f"{plan.name}: {plan.consequence}", err=err)
    for line in (*plan.changes, *(f"note: {note}" for note in plan.notes)):
        click.echo(f"  {line}", err=err)


def jobs_by_name(client: Client) -> dict[str, JobView]:
    """Return all jobs of a supervisor."""
    return {job.name: job for job in client.list_jobs()}
