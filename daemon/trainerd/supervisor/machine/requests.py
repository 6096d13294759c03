"""Answers to what people, the supervisor's own end and other jobs ask for."""

from __future__ import annotations

from dataclasses import replace

from trainerd.supervisor.commands import DrainAttempt
from trainerd.supervisor.events import PreemptionAsked, ResumeAsked, ShutdownAsked, StopAsked
from trainerd.supervisor.machine.decision import Absent, Decision, enter, stay, unchanged
from trainerd.supervisor.machine.table import answers, ignores
from trainerd.supervisor.states import (
    BackingOff,
    Draining,
    DrainReason,
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

_WAITING = (Queued, BackingOff, Paused)
_AT_REST = (Stopped, Finished, Parked, Rejected)


def _drain(job: Job, state: Starting | Running, why: DrainReason, reason: str, now: float) -> Decision:
    has_progressed = isinstance(state, Running) and state.has_progressed
    draining = Draining(why, state.gpus, has_progressed)
    return enter(job, draining, reason, now, DrainAttempt(job.attempt))


@answers(*_WAITING, on=StopAsked, leads_to=(Stopped,))
def stop_waiting(job: Job, _state: Queued, _event: StopAsked, now: float) -> Decision:
    """Stopped."""
    return enter(job, Stopped(), "stopped on request", now)


@answers(Starting, Running, on=StopAsked, leads_to=(Draining,))
def stop_running(job: Job, state: Starting | Running, _event: StopAsked, now: float) -> Decision:
    """Drained, to be kept stopped."""
    return _drain(job, state, DrainReason.STOP, "asked to stop", now)


@answers(Draining, on=StopAsked)
def stop_draining(job: Job, state: Draining, _event: StopAsked, _now: float) -> Decision:
    """To be kept stopped when it has ended, unless it is to be forgotten."""
    if state.why in {DrainReason.REMOVED, DrainReason.STOP}:
        return unchanged(job, "it is draining and will not go on")
    state = replace(state, why=DrainReason.STOP)
    return stay(replace(job, state=state, reason="asked to stop"), "asked to stop while draining")


ignores(*_AT_REST, on=StopAsked, because="nothing of it runs or is about to")
ignores(Absent, on=StopAsked, because="there is no such job")


@answers(BackingOff, Paused, Stopped, Parked, Rejected, on=ResumeAsked, leads_to=(Queued,))
def resume(job: Job, _state: Stopped, _event: ResumeAsked, now: float) -> Decision:
    """Queued, with a full budget, unless its spec is refused."""
    if job.refusal is not None:
        return unchanged(job, "its spec is refused: mend the spec first")
    return enter(replace(job, failures=0), Queued(), "resumed on request", now)


@answers(Draining, on=ResumeAsked)
def resume_draining(job: Job, state: Draining, _event: ResumeAsked, _now: float) -> Decision:
    """To go on when it has ended, unless it is to be forgotten."""
    if state.why is not DrainReason.STOP:
        return unchanged(job, "it is draining for another reason than a request to stop")
    state = replace(state, why=DrainReason.RESUMED)
    reason = "resumed while draining: it goes on when it has ended"
    return stay(replace(job, state=state, reason=reason), reason)


ignores(Queued, Starting, Running, on=ResumeAsked, because="it is on its way")
ignores(Finished, on=ResumeAsked, because="it is complete; change its spec to make it go on")
ignores(Absent, on=ResumeAsked, because="there is no such job")


@answers(Starting, Running, on=ShutdownAsked, leads_to=(Draining,))
def shut_down(job: Job, state: Starting | Running, _event: ShutdownAsked, now: float) -> Decision:
    """Drained, to go on under the next supervisor."""
    reason = "the supervisor is stopping: draining, to go on when it is back"
    return _drain(job, state, DrainReason.SHUTDOWN, reason, now)


ignores(Draining, on=ShutdownAsked, because="it is draining")
ignores(Absent, *_WAITING, *_AT_REST, on=ShutdownAsked, because="nothing of it runs")


@answers(Starting, Running, on=PreemptionAsked, leads_to=(Draining,))
def preempt(job: Job, state: Starting | Running, event: PreemptionAsked, now: float) -> Decision:
    """Drained, to go on when there is room again."""
    reason = f"{event.by} has a higher priority and needs the slot: draining"
    return _drain(job, state, DrainReason.PREEMPTED, reason, now)


ignores(Draining, on=PreemptionAsked, because="it is draining")
ignores(Absent, *_WAITING, *_AT_REST, on=PreemptionAsked, because="it holds no slot")
