"""Says in words what was decided: the same in the log, the history and `trainerd explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.contract.counted import counted
from trainerd.supervisor.log.catalogue import spoken
from trainerd.supervisor.machine.restart import is_spent
from trainerd.supervisor.machine.states import (
    BackingOff,
    Faulted,
    Finished,
    Job,
    Parked,
    Paused,
    Queued,
    Rejected,
    Stopped,
)

if TYPE_CHECKING:
    from trainerd.supervisor.machine.job_events import Event


def event_kind(before: Job | None, event: Event, after: Job | None) -> str:
    """Return what to call a decision: the state that was entered, else what was noted."""
    if after is None:
        return "job.forgotten"
    if before is None or type(before.state) is not type(after.state):
        return f"job.{after.state.NAME}"
    return f"job.noted.{spoken(type(event))}"


def next_action(job: Job | None, *, checkpoint: str | None) -> str:
    """Return what is done about an ending, and why.

    Args:
        job: The job after the decision, None if it is forgotten.
        checkpoint: Newest valid checkpoint, from which another attempt goes on.
    """
    if job is None:
        return "none: the spec was removed"
    origin = f"from {checkpoint}" if checkpoint is not None else "from the beginning"
    if job.goes_back_to is not None:
        origin = f"from {job.goes_back_to}, the checkpoint before, leaving newer ones behind"
    match job.state:
        case Queued():
            return f"run again {origin} as soon as there is a slot"
        case BackingOff(delay_s):
            return f"run again {origin} after {delay_s:.1f} s: {_budget(job)}"
        case Paused():
            return f"run again {origin} when there is room on the disk"
        case Stopped():
            return f"none until it is resumed, then {origin}"
        case Finished():
            return "none: it is complete, until its spec changes"
        case Parked():
            why = _budget(job) if is_parked_by_budget(job) else "it would end the same way"
            return f"none: {why}; change the spec or resume it to try again"
        case Rejected():
            return "none until the spec or the program changes, or it is resumed"
        case Faulted():
            return "none: trainerd failed in handling it; resume it to try again"
        case _:
            return f"it is {job.state.NAME}"


def is_parked_by_budget(job: Job) -> bool:
    """Return whether a parked job has spent its restart budget, and is not parked for what happened."""
    return job.spec is not None and is_spent(job.failures, job.spec.restart)


def _budget(job: Job) -> str:
    budget = job.spec.restart.budget if job.spec is not None else 0
    if job.failures == 0:
        return "it has made progress, so its restart budget is full"
    attempts = counted(budget, "attempt without progress is", "attempts without progress are")
    return f"{job.failures} of {attempts} spent"
