"""Answers to the scheduler."""

from __future__ import annotations

from dataclasses import replace

from trainerd.supervisor.machine.commands import LaunchAttempt
from trainerd.supervisor.machine.decision import Absent, Transition, enter
from trainerd.supervisor.machine.job_events import NeverFits, SlotGranted
from trainerd.supervisor.machine.states import (
    BackingOff,
    Draining,
    Finished,
    Job,
    Parked,
    Paused,
    Queued,
    Rejected,
    Running,
    Starting,
    Stopped,
)
from trainerd.supervisor.machine.table import answers, ignores

_OTHERS = (Absent, Starting, Running, Draining, BackingOff, Paused, Stopped, Finished, Parked, Rejected)


@answers(Queued, on=SlotGranted, leads_to=(Starting,))
def launch(job: Job, _state: Queued, event: SlotGranted, now: float) -> Transition:
    """The next attempt is launched."""
    assert job.spec is not None, "a queued job has a spec"
    attempt = job.attempt + 1
    job = replace(job, attempt=attempt, attempt_digest=job.spec.spec_digest, held=job.spec.resources)
    return enter(job, Starting(event.gpus), f"launching attempt {attempt}", now, LaunchAttempt(attempt))


ignores(*_OTHERS, on=SlotGranted, because="it does not wait for a slot")


@answers(Queued, on=NeverFits, leads_to=(Rejected,))
def reject_misfit(job: Job, _state: Queued, event: NeverFits, now: float) -> Transition:
    """Rejected: waiting would not help."""
    return enter(job, Rejected("resources"), event.why, now)


ignores(*_OTHERS, on=NeverFits, because="it does not wait for a slot")
