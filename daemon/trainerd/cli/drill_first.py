"""A drill before a job is submitted, and its record in the state folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.durations import option_s
from trainerd.contract.drill_record import DrilledRecord, programs_of, read_drilled, write_drilled
from trainerd.contract.folder_owner import acting_as_owner_of
from trainerd.contract.safe_text import safe_line
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from trainerd.contract.paths import StatePaths
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.drill.drill_report import DrillReport
    from trainerd.supervisor.specs.placement import Placement

DEFAULT_BUDGET: Final = "5m"

_BUDGET_S_MIN: Final = 1.0


def drilled_before(
    files: tuple[Path, ...],
    placements: Sequence[Placement],
    budget: str,
    context: click.Context,
    *,
    state: StatePaths,
    say: Callable[[str], None],
) -> list[DrillReport]:
    """Drill the jobs of specs; leave the program with exit code 1 at the first one that is not exact.

    Args:
        files: The specs.
        placements: What placing each of them would write.
        budget: Time for each drill.
        context: Of the verb.
        state: Where the drill that is not exact is written down.
        say: Told that this is not possible.
    """
    from trainerd.cli.drill import drill_job, show_report
    from trainerd.cli.needs_torch import needing_torch
    from trainerd.supervisor.specs.load import load_spec, parse_spec

    with needing_torch("submit --drill"):
        from trainerd.drill.drilled_job import job_of_spec
        from trainerd.drill.report_text import closing_line
    reports = []
    for file, placement in zip(files, placements, strict=True):
        report = drill_job(job_of_spec(load_spec(file, trust=None)), budget_s=seconds_of(budget))
        if report.verdict != "exact":
            show_report(report, as_json=False, err=True)
            note_drill(state, parse_spec(placement.target, placement.data).resolve(None), report, say=say)
            click.echo(
                f"error: {safe_line(str(file))}: the drill is not exact: nothing was submitted", err=True
            )
            context.exit(1)
        if report.unfit:
            click.echo(f"{file}: {closing_line(report)}", err=True)
        reports.append(report)
    return reports


def note_drill(
    state: StatePaths, spec: ResolvedJob, report: DrillReport, *, say: Callable[[str], None]
) -> None:
    """Write down that a job was drilled. That this is not possible keeps no job from running.

    The spec of a drill that is not exact is not submitted: the record of another spec, which stays in force,
    is kept.
    """
    before = read_drilled(state.drill(spec.name)) if report.verdict != "exact" else None
    if before is not None and before.spec_digest != spec.spec_digest:
        return
    record = DrilledRecord(
        report.verdict,
        report.struck,
        spec.spec_digest,
        report.wall_s,
        report.unfit,
        began_wall_s=report.wall_s - report.took_s,
        programs=programs_of(spec.command, spec.workdir),
    )
    try:
        with acting_as_owner_of(state.root):
            write_drilled(state.drill(spec.name), record)
    except (OSError, TrainerdError) as error:
        say(f"{spec.name}: the record of the drill cannot be written: {error}")


def seconds_of(text: str) -> float:
    """Return the seconds of a drill's budget.

    Raises:
        click.UsageError: It is no duration of 1 s or more.
    """
    return option_s("--budget", text, least_s=_BUDGET_S_MIN)
