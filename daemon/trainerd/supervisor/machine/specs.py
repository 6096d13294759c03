"""Answers to what happens in the jobs folder.

A job with a live attempt is never disturbed by a spec that cannot be read: only by one that says something
else, or by one that is gone. A job that waits is rejected while its file is refused, since nothing may be
launched under a spec that its author is changing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from trainerd.supervisor.machine.commands import DrainAttempt, ObserveAttempt
from trainerd.supervisor.machine.decision import Absent, Transition, enter, forget, forgiven, stay, unchanged
from trainerd.supervisor.machine.job_events import SpecAccepted, SpecRefused, SpecVanished
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
from trainerd.supervisor.machine.table import answers

_SAME: Final = "the spec is the one that is in force"


def _is_news(job: Job, event: SpecAccepted) -> bool:
    """Return whether the spec says something else; another file or another layout is no news."""
    return job.spec is None or job.spec.spec_digest != event.spec.spec_digest


def _renewed(job: Job, event: SpecAccepted) -> Job:
    """Return the job under another spec: with a full budget, since what failed has changed."""
    job = forgiven(job) if _is_news(job, event) else job
    return replace(job, spec=event.spec, refusal=None)


def _no_news(job: Job, event: SpecAccepted) -> Transition:
    """Answer a spec that says what it said, from wherever it stands now."""
    if job.refusal is not None:
        job = replace(job, refusal=None, spec=event.spec)
        return stay(job, "the spec can be read again and says what it said")
    if job.spec is not None and job.spec.spec_path != event.spec.spec_path:
        reason = f"the spec was renamed and says what it said: it is {event.spec.spec_path} now"
        return stay(replace(job, spec=event.spec), reason)
    return unchanged(job, _SAME)


@answers(Absent, on=SpecAccepted, leads_to=(Queued, Starting))
def submit(job: Job, _state: Absent | Rejected, event: SpecAccepted, now: float) -> Transition:
    """A new job; if its run folder holds an attempt that may still live, that one is adopted."""
    job = replace(_renewed(job, event), attempt=event.newest_attempt)
    if event.is_live:
        job = replace(job, attempt_digest=event.spec.spec_digest, held=event.spec.resources)
        reason = f"attempt {job.attempt} was found in its run folder, and may still run"
        return enter(job, Starting(), reason, now, ObserveAttempt(job.attempt))
    return enter(job, Queued(), "submitted", now)


@answers(Queued, on=SpecAccepted)
def requeue(job: Job, _state: Queued, event: SpecAccepted, _now: float) -> Transition:
    """Queued under the new spec, in the same place of the queue."""
    if not _is_news(job, event):
        return _no_news(job, event)
    return stay(replace(_renewed(job, event), reason="the spec has changed"), "the spec has changed")


@answers(Starting, Running, on=SpecAccepted, leads_to=(Draining,))
def respecify(job: Job, state: Starting | Running, event: SpecAccepted, now: float) -> Transition:
    """If it says something else: drained, to go on under the new spec."""
    if not _is_news(job, event):
        return _no_news(job, event)
    has_progressed = isinstance(state, Running) and state.has_progressed
    draining = Draining(DrainReason.CHANGED, state.gpus, has_progressed)
    reason = "the spec has changed: draining, to go on under the new one"
    return enter(_renewed(job, event), draining, reason, now, DrainAttempt(job.attempt))


@answers(Draining, on=SpecAccepted)
def respecify_draining(job: Job, state: Draining, event: SpecAccepted, _now: float) -> Transition:
    """Remembered; a job that was draining because its spec was gone will go on."""
    if state.why is DrainReason.REMOVED:
        reason = "the spec is back: draining, to go on under it"
        state = replace(state, why=DrainReason.CHANGED)
        return stay(replace(_renewed(job, event), state=state, reason=reason), reason)
    if not _is_news(job, event):
        return _no_news(job, event)
    return stay(_renewed(job, event), "the spec has changed while draining")


@answers(BackingOff, Paused, Parked, on=SpecAccepted, leads_to=(Queued,))
def try_again(job: Job, _state: BackingOff | Paused | Parked, event: SpecAccepted, now: float) -> Transition:
    """If it says something else: tried again at once, with a full budget."""
    if not _is_news(job, event):
        return _no_news(job, event)
    return enter(_renewed(job, event), Queued(), "the spec has changed: trying again", now)


@answers(Stopped, on=SpecAccepted)
def respecify_stopped(job: Job, _state: Stopped, event: SpecAccepted, _now: float) -> Transition:
    """Remembered for when it is resumed."""
    if not _is_news(job, event):
        return _no_news(job, event)
    return stay(_renewed(job, event), "the spec has changed; the job stays stopped until it is resumed")


@answers(Finished, on=SpecAccepted, leads_to=(Queued,))
def go_on(job: Job, state: Finished, event: SpecAccepted, now: float) -> Transition:
    """If it says something else: goes on from the last checkpoint."""
    if event.spec.spec_digest == state.spec_digest:
        return _no_news(job, event)
    return enter(_renewed(job, event), Queued(), "it had finished, and the spec has changed: going on", now)


@answers(Rejected, on=SpecAccepted, leads_to=(Queued, Starting))
def accept(job: Job, state: Rejected, event: SpecAccepted, now: float) -> Transition:
    """Tried again, unless it was the program or the machine that refused and nothing has changed."""
    if job.spec is None:
        # It was refused from the beginning, so its run folder was never looked at.
        return submit(job, state, event, now)
    if state.by != "spec" and not _is_news(job, event):
        return _no_news(job, event)
    return enter(_renewed(job, event), Queued(), "the spec was corrected", now)


@answers(Absent, on=SpecRefused, leads_to=(Rejected,))
def reject_new(job: Job, _state: Absent, event: SpecRefused, now: float) -> Transition:
    """Rejected, with what is wrong and where."""
    return enter(replace(job, refusal=event.error), Rejected("spec"), event.error, now)


@answers(Queued, BackingOff, Paused, Rejected, on=SpecRefused, leads_to=(Rejected,))
def reject_waiting(job: Job, state: Queued | Rejected, event: SpecRefused, now: float) -> Transition:
    """Rejected until the spec is corrected: nothing is launched under a spec that is refused."""
    if isinstance(state, Rejected) and job.refusal == event.error:
        return unchanged(job, "it is refused for the same reason as before")
    return enter(replace(job, refusal=event.error), Rejected("spec"), event.error, now)


@answers(Starting, Running, Draining, Stopped, Finished, Parked, on=SpecRefused)
def note_refusal(job: Job, _state: Running, event: SpecRefused, _now: float) -> Transition:
    """Noted and shown; the job is not disturbed, and nothing new is launched until the spec is corrected."""
    if job.refusal == event.error:
        return unchanged(job, "it is refused for the same reason as before")
    return stay(
        replace(job, refusal=event.error), f"the spec is refused, the job is left as it is: {event.error}"
    )


@answers(Queued, BackingOff, Paused, Stopped, Finished, Parked, Rejected, on=SpecVanished, leads_to=(Absent,))
def forget_idle(_job: Job, _state: Queued, _event: SpecVanished, _now: float) -> Transition:
    """Forgotten; its run folder stays."""
    return forget("the spec was removed: forgotten, its run folder stays")


@answers(Starting, Running, on=SpecVanished, leads_to=(Draining,))
def drain_removed(job: Job, state: Starting | Running, _event: SpecVanished, now: float) -> Transition:
    """Drained, to be forgotten when it has ended."""
    has_progressed = isinstance(state, Running) and state.has_progressed
    draining = Draining(DrainReason.REMOVED, state.gpus, has_progressed)
    return enter(job, draining, "the spec was removed: draining", now, DrainAttempt(job.attempt))


@answers(Draining, on=SpecVanished)
def remove_draining(job: Job, state: Draining, _event: SpecVanished, _now: float) -> Transition:
    """To be forgotten when it has ended."""
    if state.why is DrainReason.REMOVED:
        return unchanged(job, "it is known to be removed")
    reason = "the spec was removed: draining"
    return stay(replace(job, state=replace(state, why=DrainReason.REMOVED), reason=reason), reason)


@answers(Absent, on=SpecVanished)
def forget_absent(job: Job, _state: Absent, _event: SpecVanished, _now: float) -> Transition:
    """Ignored: there is nothing to forget."""
    return unchanged(job, "there is nothing to forget")
