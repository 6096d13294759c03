"""Answers to what people, the supervisor's own end and other jobs ask for."""

from __future__ import annotations

from dataclasses import replace

from trainerd.supervisor.machine.commands import DrainAttempt
from trainerd.supervisor.machine.decision import Absent, Transition, enter, forgiven, stay, unchanged
from trainerd.supervisor.machine.job_events import (
    HoldAsked,
    PreemptionAsked,
    ResumeAsked,
    RetryAsked,
    ShutdownAsked,
    StopAsked,
)
from trainerd.supervisor.machine.states import (
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
from trainerd.supervisor.machine.table import answers, ignores

_WAITING = (Queued, BackingOff, Paused)
_AT_REST = (Stopped, Finished, Parked, Rejected)


def _drain(job: Job, state: Starting | Running, why: DrainReason, reason: str, now: float) -> Transition:
    has_progressed = isinstance(state, Running) and state.has_progressed
    draining = Draining(why, state.gpus, has_progressed)
    return enter(job, draining, reason, now, DrainAttempt(job.attempt))


@answers(*_WAITING, on=StopAsked, leads_to=(Stopped,))
def stop_waiting(job: Job, _state: Queued, _event: StopAsked, now: float) -> Transition:
    """Stopped."""
    return enter(job, Stopped(), "stopped on request", now)


@answers(Starting, Running, on=StopAsked, leads_to=(Draining,))
def stop_running(job: Job, state: Starting | Running, _event: StopAsked, now: float) -> Transition:
    """Drained, to be kept stopped."""
    return _drain(job, state, DrainReason.STOP, "asked to stop", now)


@answers(Draining, on=StopAsked)
def stop_draining(job: Job, state: Draining, _event: StopAsked, _now: float) -> Transition:
    """To be kept stopped when it has ended, unless it is to be forgotten."""
    if state.why in {DrainReason.REMOVED, DrainReason.STOP}:
        return unchanged(job, "it is draining and will not go on")
    state = replace(state, why=DrainReason.STOP)
    return stay(replace(job, state=state, reason="asked to stop"), "asked to stop while draining")


ignores(*_AT_REST, on=StopAsked, because="nothing of it runs or is about to")
ignores(Absent, on=StopAsked, because="there is no such job")


@answers(BackingOff, Paused, Stopped, Parked, Rejected, on=ResumeAsked, leads_to=(Queued,))
def resume(job: Job, _state: Stopped, _event: ResumeAsked, now: float) -> Transition:
    """Queued, with a full budget, unless its spec is refused."""
    if job.refusal is not None:
        return unchanged(job, "its spec is refused: correct the spec first")
    return enter(replace(forgiven(job), is_held=False), Queued(), "resumed on request", now)


@answers(Draining, on=ResumeAsked)
def resume_draining(job: Job, state: Draining, _event: ResumeAsked, _now: float) -> Transition:
    """To go on when it has ended, unless it is to be forgotten."""
    is_on_request = state.why in {DrainReason.STOP, DrainReason.HELD}
    if state.why is DrainReason.REMOVED or not (is_on_request or job.is_held):
        return unchanged(job, "it is draining for another reason than a request to stop")
    if is_on_request:
        state = replace(state, why=DrainReason.RESUMED)
    reason = "resumed while draining: it goes on when it has ended"
    return stay(replace(job, state=state, reason=reason, is_held=False), reason)


@answers(Queued, on=ResumeAsked)
def release(job: Job, _state: Queued, _event: ResumeAsked, _now: float) -> Transition:
    """No longer held: it waits for its turn, with a full budget."""
    if not job.is_held:
        return unchanged(job, "it is on its way")
    reason = "no longer held: it waits for its turn"
    return stay(replace(forgiven(job), is_held=False, reason=reason), reason)


@answers(Finished, on=ResumeAsked)
def release_finished(job: Job, _state: Finished, _event: ResumeAsked, _now: float) -> Transition:
    """No longer held; another spec makes it go on."""
    if not job.is_held:
        return unchanged(job, "it is complete; change its spec to make it go on, or restart it")
    return stay(replace(job, is_held=False), "no longer held; it is complete under its spec")


ignores(Starting, Running, on=ResumeAsked, because="it is on its way")
ignores(Absent, on=ResumeAsked, because="there is no such job")


_HELD = "held until it is resumed"


@answers(*_WAITING, *_AT_REST, on=HoldAsked)
def hold(job: Job, state: Queued | Stopped, _event: HoldAsked, _now: float) -> Transition:
    """Nothing of it is launched until it is resumed; it stays what it is."""
    if job.is_held:
        return unchanged(job, "it is held already")
    reason = _HELD if isinstance(state, Queued) else job.reason
    return stay(replace(job, is_held=True, reason=reason), _HELD)


@answers(Starting, Running, on=HoldAsked, leads_to=(Draining,))
def hold_running(job: Job, state: Starting | Running, _event: HoldAsked, now: float) -> Transition:
    """Drained, and held in the queue from then on."""
    reason = "asked to be held: draining, to wait in the queue until it is resumed"
    return _drain(replace(job, is_held=True), state, DrainReason.HELD, reason, now)


@answers(Draining, on=HoldAsked)
def hold_draining(job: Job, _state: Draining, _event: HoldAsked, _now: float) -> Transition:
    """Held from when it has ended."""
    if job.is_held:
        return unchanged(job, "it is held already")
    return stay(replace(job, is_held=True), "held from when it has ended")


ignores(Absent, on=HoldAsked, because="there is no such job")


@answers(BackingOff, Paused, Parked, Rejected, on=RetryAsked, leads_to=(Queued,))
def retry(job: Job, _state: Parked, _event: RetryAsked, now: float) -> Transition:
    """Queued, with a full budget, unless its spec is refused; what is held stays so."""
    if job.refusal is not None:
        return unchanged(job, "its spec is refused: correct the spec first")
    return enter(forgiven(job), Queued(), "tried again on request, with a full budget", now)


ignores(Queued, Starting, Running, Draining, on=RetryAsked, because="it has not been given up")
ignores(Stopped, on=RetryAsked, because="it was stopped on request; resume it")
ignores(Finished, on=RetryAsked, because="it is complete; change its spec, or restart it")
ignores(Absent, on=RetryAsked, because="there is no such job")


@answers(Starting, Running, on=ShutdownAsked, leads_to=(Draining,))
def shut_down(job: Job, state: Starting | Running, event: ShutdownAsked, now: float) -> Transition:
    """Drained, to go on under the next supervisor, or when this one is resumed."""
    if event.is_leaving:
        reason = "the supervisor is stopping: draining, to go on when it is back"
    elif event.why:
        reason = f"{event.why}: draining, to go on when jobs are started again"
    else:
        reason = "the supervisor starts nothing for now: draining, to go on when it does again"
    return _drain(job, state, DrainReason.SHUTDOWN, reason, now)


ignores(Draining, on=ShutdownAsked, because="it is draining")
ignores(Absent, *_WAITING, *_AT_REST, on=ShutdownAsked, because="nothing of it runs")


@answers(Starting, Running, on=PreemptionAsked, leads_to=(Draining,))
def preempt(job: Job, state: Starting | Running, event: PreemptionAsked, now: float) -> Transition:
    """Drained, to go on when there is room again."""
    reason = f"{event.by} has a higher priority and needs the slot: draining"
    return _drain(job, state, DrainReason.PREEMPTED, reason, now)


ignores(Draining, on=PreemptionAsked, because="it is draining")
ignores(Absent, *_WAITING, *_AT_REST, on=PreemptionAsked, because="it holds no slot")
