"""Answers to a request to start a job again that is at rest, also one that is complete."""

from __future__ import annotations

from dataclasses import replace

from trainerd.supervisor.machine.decision import Absent, Transition, enter, forgiven, unchanged
from trainerd.supervisor.machine.job_events import RestartAsked
from trainerd.supervisor.machine.states import (
    NO_STEP,
    BackingOff,
    Draining,
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


@answers(
    *(Queued, BackingOff, Paused, Stopped, Finished, Parked, Rejected), on=RestartAsked, leads_to=(Queued,)
)
def start_again(job: Job, _state: Stopped | Faulted, event: RestartAsked, now: float) -> Transition:
    """Queued, with a full budget, unless its spec is refused; a new run has reached no step yet."""
    if job.refusal is not None or job.spec is None:
        return unchanged(job, "its spec is refused: correct the spec first")
    return enter(_as_asked(job, event), Queued(), _reason(event), now)


@answers(Faulted, on=RestartAsked, leads_to=(Queued,))
def start_after_fault(job: Job, state: Faulted, event: RestartAsked, now: float) -> Transition:
    """Queued, with a full budget, unless its attempt may live or its spec is refused."""
    if state.may_live:
        return unchanged(job, "its attempt may run on: stop it first")
    return start_again(job, state, event, now)


def refusal_of_restart(job: Job) -> str | None:
    """Return why a job would not be started again once it is stopped, None if it would."""
    stopped = Stopped()
    answer = start_again(replace(job, state=stopped), stopped, RestartAsked(), job.since_wall_s)
    return answer.reason if answer.is_ignored else None


def _as_asked(job: Job, event: RestartAsked) -> Job:
    job = replace(forgiven(job), is_held=False)
    return replace(job, best_step=NO_STEP, goes_back_to=None) if event.is_fresh else job


def _reason(event: RestartAsked) -> str:
    return "restarted on request" + (", with a new run" if event.is_fresh else "")


ignores(Starting, Running, Draining, on=RestartAsked, because="an attempt of it runs: stop it first")
ignores(Absent, on=RestartAsked, because="there is no such job")
