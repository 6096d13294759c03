"""Jobs, endings and events as the interfaces show them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from trainerd.contract.resume_record import summary
from trainerd.contract.safe_text import safe_line, safe_text, safe_value
from trainerd.supervisor.api.control import EventView, JobView, OutcomeView, ReasonView
from trainerd.supervisor.api.job_progress import job_progress
from trainerd.supervisor.machine.states import BackingOff, Paused, Queued

if TYPE_CHECKING:
    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.contract.paths import RunPaths
    from trainerd.contract.resume_record import ResumeRecord
    from trainerd.supervisor.api.saved_progress import SavedProgress
    from trainerd.supervisor.attempt.monitor import Monitor
    from trainerd.supervisor.journal.journal import EndingRow, EventRow
    from trainerd.supervisor.machine.states import Job


def job_view(
    job: Job,
    run: RunPaths,
    *,
    monitor: Monitor | None = None,
    heartbeat: Heartbeat | None = None,
    past: Heartbeat | None = None,
    saved: SavedProgress | None = None,
    last_outcome: OutcomeView | None = None,
    wait: str | None = None,
    resume: ResumeRecord | None = None,
    standby: str | None = None,
    memory_step: int | None = None,
) -> JobView:
    """Return a job as shown.

    Args:
        job: The job.
        run: Its run folder.
        monitor: Of its live attempt.
        heartbeat: What its live attempt said last.
        past: What the newest attempt that is not live said last.
        saved: What is in its run folder, None if that was not observed.
        last_outcome: How its newest ended attempt ended.
        wait: Why it waits for a slot.
        resume: What is known of its newest resume.
        standby: How the process is that is kept ready for its next attempt.
        memory_step: Step of its newest copy in memory, None if it has none.
    """
    progress = job_progress(job, live=heartbeat, past=past, saved=saved)
    return JobView(
        name=job.name,
        state=job.state.NAME,
        reason=safe_text(_reason(job, wait)),
        since_wall_s=job.since_wall_s,
        attempt=job.attempt,
        spec_path=safe_line(job.spec.spec_path) if job.spec is not None else "",
        run_dir=safe_line(str(run.root)),
        **asdict(progress),
        shim_pid=monitor.shim.pid if monitor is not None and monitor.shim is not None else None,
        pids=tuple(rank.pid for rank in monitor.ranks) if monitor is not None else (),
        retry_at_wall_s=job.state.until_wall_s if isinstance(job.state, BackingOff | Paused) else None,
        budget_left=max(job.spec.restart.budget - job.failures, 0) if job.spec is not None else None,
        priority=job.spec.priority if job.spec is not None else 0,
        last_outcome=last_outcome,
        spec_digest=job.spec.spec_digest if job.spec is not None else "",
        resume=_one_line(summary(resume)) if resume is not None else None,
        resume_verdict=resume.verdict if resume is not None else None,
        resume_reasons=resume_reasons(resume),
        is_held=job.is_held,
        gpus=getattr(job.state, "gpus", ()),
        standby=safe_line(standby) if standby is not None else None,
        memory_step=memory_step,
    )


def _reason(job: Job, wait: str | None) -> str:
    if isinstance(job.state, Queued) and wait is not None:
        return wait
    if job.refusal is not None and job.refusal not in job.reason:
        return f"{job.reason} (the spec as it is now is refused: {job.refusal})"
    return job.reason


def resume_reasons(record: ResumeRecord | None) -> tuple[ReasonView, ...]:
    """Return the reasons for the verdict on a resume as shown."""
    return tuple(
        ReasonView(*map(_one_line, (each.kind, each.where, each.detail, each.hint)))
        for each in (record.reasons if record is not None else ())
    )


def _one_line(text: str) -> str:
    """Return a text of a job's as it can be displayed: whatever a terminal would obey is replaced."""
    return "".join(each if each.isprintable() else " " for each in text)


def outcome_view(row: EndingRow) -> OutcomeView:
    """Return the record of an ending as shown."""
    outcome = OutcomeView(
        attempt=row.attempt,
        kind=row.outcome.kind.value,
        reason=row.outcome.reason,
        evidence=row.outcome.evidence,
        step=row.outcome.step,
        checkpoint=row.outcome.checkpoint,
        next_action=row.next_action,
        wall_s=row.outcome.ended_wall_s,
    )
    return safe_value(outcome)


def event_view(row: EventRow) -> EventView:
    """Return one line of history as shown."""
    return EventView(
        row.sequence, row.wall_s, row.job, row.kind, safe_text(row.message), safe_value(row.data)
    )
