"""Answers to the end of a wait: for time, for room on the disk, for a script to be corrected."""

from __future__ import annotations

from dataclasses import replace

from trainerd.supervisor.machine.decision import Absent, Transition, enter, forgiven, queue, stay, unchanged
from trainerd.supervisor.machine.job_events import ScriptChanged, SpaceBack, WaitEnded
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


@answers(BackingOff, on=WaitEnded, leads_to=(Queued, Rejected))
def retry(job: Job, _state: BackingOff, _event: WaitEnded, now: float) -> Transition:
    """Queued for the next attempt."""
    return queue(job, f"trying again: {job.reason}", now)


@answers(Paused, on=WaitEnded)
def note_wait(job: Job, state: Paused, _event: WaitEnded, _now: float) -> Transition:
    """From now on, room on the disk is enough to go on."""
    if state.has_waited:
        return unchanged(job, "it waits for room on the disk")
    return stay(replace(job, state=replace(state, has_waited=True)), "waiting for room on the disk")


_NOT_WAITING = (Absent, Queued, Starting, Running, Draining, Stopped, Finished, Parked, Rejected)
ignores(*_NOT_WAITING, on=WaitEnded, because="it no longer waits")


@answers(Paused, on=SpaceBack, leads_to=(Queued, Rejected))
def go_on(job: Job, state: Paused, _event: SpaceBack, now: float) -> Transition:
    """Queued, once the shortest wait is over."""
    if not state.has_waited:
        return unchanged(job, "there was room before, and it did not help: the wait is not over")
    return queue(job, "there is room on the disk again", now)


ignores(*_NOT_WAITING, BackingOff, on=SpaceBack, because="it does not wait for room")


@answers(Rejected, on=ScriptChanged, leads_to=(Queued,))
def try_script(job: Job, state: Rejected, _event: ScriptChanged, now: float) -> Transition:
    """Tried again, if it was the program that could not run."""
    if state.by != "program" or job.refusal is not None:
        return unchanged(job, "it was not the program that was refused")
    return enter(forgiven(job), Queued(), "the program has changed: trying again", now)


_NOT_REJECTED = (Absent, Queued, Starting, Running, Draining, BackingOff, Paused, Stopped, Finished, Parked)
ignores(*_NOT_REJECTED, on=ScriptChanged, because="it is not rejected")
