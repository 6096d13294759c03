"""The newest drill of a job as `trainerd status` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainerd.cli.shown_zone import moment
from trainerd.contract.counted import counted
from trainerd.contract.drill_record import written_since

if TYPE_CHECKING:
    from trainerd.contract.drill_record import DrilledRecord
    from trainerd.supervisor.api.control import JobView


def in_force(job: JobView, record: DrilledRecord | None) -> DrilledRecord | None:
    """Return the record of a drill of the spec in force; that of another spec says nothing."""
    if record is None or not job.spec_digest or record.spec_digest != job.spec_digest:
        return None
    return record


def drilled_json(record: DrilledRecord) -> dict[str, Any]:
    """Return how a drill went, as in the JSON of `trainerd status`."""
    return {
        "verdict": record.verdict,
        "faults": record.faults,
        "unfit": record.unfit,
        "wall_s": record.wall_s,
        "written_since": list(written_since(record)),
    }


def drilled_line(record: DrilledRecord) -> str:
    """Return how a drill went, and whether its programs have changed since."""
    since = written_since(record)
    other = f"; not with {', '.join(since)} as it is now: drill it again" if since else ""
    return f"{record.verdict}, {moment(record.wall_s)} ({_faults_run(record)}){other}"


def _faults_run(record: DrilledRecord) -> str:
    if not record.faults:
        return f"no fault was run{', as none fitted the budget' if record.unfit else ''}"
    if not record.unfit:
        return counted(record.faults, "fault")
    others = "the other" if record.unfit == 1 else "the others"
    every = counted(record.faults + record.unfit, "fault")
    return f"{record.faults} of {every} run, {others} did not fit the budget"
