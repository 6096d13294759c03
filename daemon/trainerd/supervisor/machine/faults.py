"""Answers to a fault of trainerd's own in handling a job, and to all that happens to a job set aside for one.

Nothing is known to be wrong with the job, so nothing of it is ended: an attempt that may live goes on, and
keeps its slot, but is not watched until the job is resumed, tried again or stopped.
"""

from __future__ import annotations

from dataclasses import replace

from trainerd.supervisor.machine.commands import DrainAttempt, ObserveAttempt
from trainerd.supervisor.machine.decision import Absent, Transition, enter, forget, forgiven, stay, unchanged
from trainerd.supervisor.machine.job_events import (
    AttemptEnded,
    AttemptSeen,
    AttemptVoided,
    DrainSignalled,
    FaultSeen,
    HoldAsked,
    LaunchFailed,
    NeverFits,
    ObservationFailed,
    PreemptionAsked,
    ProgressSeen,
    ResumeAsked,
    RetryAsked,
    ScriptChanged,
    ShutdownAsked,
    SlotGranted,
    SpaceBack,
    SpecAccepted,
    SpecRefused,
    SpecVanished,
    StallSeen,
    StopAsked,
    WaitEnded,
)
from trainerd.supervisor.machine.specs import submit
from trainerd.supervisor.machine.states import (
    BackingOff,
    Draining,
    DrainReason,
    Faulted,
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

_RUNS_ON = "its attempt may run on, unwatched, until the job is resumed or stopped"


@answers(
    *(Absent, Queued, BackingOff, Paused, Stopped, Finished, Parked, Rejected),
    on=FaultSeen,
    leads_to=(Faulted,),
)
def set_aside(job: Job, _state: Queued, event: FaultSeen, now: float) -> Transition:
    """Set aside with the traceback; nothing of it is launched until it is resumed, tried again or changed."""
    return enter(job, Faulted(event.detail), event.error, now)


@answers(Starting, Running, Draining, on=FaultSeen, leads_to=(Faulted,))
def set_aside_live(
    job: Job, state: Starting | Running | Draining, event: FaultSeen, now: float
) -> Transition:
    """Set aside with the traceback; its attempt may run on, unwatched, and keeps its slot."""
    faulted = Faulted(event.detail, may_live=True, devices=state.gpus)
    return enter(job, faulted, f"{event.error}; {_RUNS_ON}", now)


@answers(Faulted, on=FaultSeen)
def note_fault(job: Job, state: Faulted, event: FaultSeen, _now: float) -> Transition:
    """Noted: the newest fault is the one that is shown."""
    if state.detail == event.detail:
        return unchanged(job, "it is set aside for that")
    return stay(replace(job, state=replace(state, detail=event.detail), reason=event.error), event.error)


@answers(Faulted, on=AttemptEnded)
@answers(Faulted, on=AttemptVoided)
@answers(Faulted, on=LaunchFailed)
def note_end(job: Job, state: Faulted, event: AttemptEnded, _now: float) -> Transition:
    """Its slot is free; it stays set aside."""
    if not state.may_live:
        return unchanged(job, "its attempt is known to be over")
    reason = f"attempt {event.attempt} is over: its slot is free, the job stays set aside"
    over = replace(job, state=replace(state, may_live=False, devices=()))
    return stay(replace(over, reason=job.reason.replace(f"; {_RUNS_ON}", "")), reason)


@answers(Faulted, on=ResumeAsked, leads_to=(Queued, Starting))
@answers(Faulted, on=RetryAsked, leads_to=(Queued, Starting))
def try_after_fault(job: Job, state: Faulted, event: ResumeAsked | RetryAsked, now: float) -> Transition:
    """Watched again if its attempt may live; else queued, unless its spec is refused."""
    decision = _again(job, state, "handled again on request", now)
    if decision.is_ignored or decision.job is None or isinstance(event, RetryAsked):
        return decision
    return replace(decision, job=replace(decision.job, is_held=False))


@answers(Faulted, on=SpecAccepted, leads_to=(Queued, Starting))
def try_changed(job: Job, state: Faulted, event: SpecAccepted, now: float) -> Transition:
    """If it says something else: handled again under the new spec."""
    if job.spec is None:
        return submit(
            job, Absent(), event, now
        )  # it was never accepted, so its run folder has not been asked
    changed = replace(job, spec=event.spec, refusal=None)
    if job.spec.spec_digest == event.spec.spec_digest:
        if changed == job:
            return unchanged(job, "the spec is the one that is in force")
        where = f"it is {event.spec.spec_path} now"
        return stay(changed, f"the spec says what it said; {where}; the job stays set aside")
    return _again(changed, state, "the spec has changed: handled again", now)


def _again(job: Job, state: Faulted, reason: str, now: float) -> Transition:
    if state.may_live:
        return enter(job, Starting(state.devices), reason, now, ObserveAttempt(job.attempt))
    if job.refusal is not None or job.spec is None:
        return unchanged(job, "its spec is refused: correct the spec first")
    return enter(forgiven(job), Queued(), reason, now)


@answers(Faulted, on=SpecRefused)
def note_refused(job: Job, _state: Faulted, event: SpecRefused, _now: float) -> Transition:
    """Noted and shown."""
    if job.refusal == event.error:
        return unchanged(job, "it is refused for the same reason as before")
    return stay(replace(job, refusal=event.error), f"the spec is refused: {event.error}")


@answers(Faulted, on=SpecVanished, leads_to=(Draining, Absent))
def forget_faulted(job: Job, state: Faulted, _event: SpecVanished, now: float) -> Transition:
    """Forgotten; an attempt that may live is drained first."""
    if not state.may_live:
        return forget("the spec was removed: forgotten, its run folder stays")
    return _drained(job, state, DrainReason.REMOVED, "the spec was removed: draining", now)


@answers(Faulted, on=StopAsked, leads_to=(Draining, Stopped))
def stop_faulted(job: Job, state: Faulted, _event: StopAsked, now: float) -> Transition:
    """Stopped; an attempt that may live is drained first."""
    if not state.may_live:
        return enter(job, Stopped(), "stopped on request", now)
    return _drained(job, state, DrainReason.STOP, "asked to stop", now)


@answers(Faulted, on=ShutdownAsked, leads_to=(Draining,))
def shut_down_faulted(job: Job, state: Faulted, _event: ShutdownAsked, now: float) -> Transition:
    """An attempt that may live is drained."""
    if not state.may_live:
        return unchanged(job, "nothing of it runs")
    return _drained(job, state, DrainReason.SHUTDOWN, "the supervisor is stopping: draining", now)


def _drained(job: Job, state: Faulted, why: DrainReason, reason: str, now: float) -> Transition:
    commands = (ObserveAttempt(job.attempt), DrainAttempt(job.attempt))
    return enter(job, Draining(why, state.devices), reason, now, *commands)


@answers(Faulted, on=HoldAsked)
def hold_faulted(job: Job, _state: Faulted, _event: HoldAsked, _now: float) -> Transition:
    """Nothing of it is launched until it is resumed."""
    if job.is_held:
        return unchanged(job, "it is held already")
    return stay(replace(job, is_held=True), "held until it is resumed")


ignores(
    Faulted,
    on=(SlotGranted, NeverFits, PreemptionAsked, WaitEnded, SpaceBack, ScriptChanged),
    because="it is set aside: it waits for nothing",
)
ignores(
    Faulted,
    on=(AttemptSeen, DrainSignalled, ProgressSeen, StallSeen, ObservationFailed),
    because="it is set aside: its attempt is not watched",
)
