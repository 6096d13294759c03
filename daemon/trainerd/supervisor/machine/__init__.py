"""The state machine: `(job, event, now) -> decision`. Pure; every pair of state and event has an answer.

An answer is a function registered for the pairs that it answers, and its docstring says what it does:
``docs/state-machine.md`` is made from them. To ignore an event is an answer too, and gives its reason.

Invariants:
* At most one attempt of a job may have processes on this machine: one is launched from `Queued` only, and a
  live state is left only on an event that says that no process of the attempt is left. One on another machine
  is fenced before that event.
* No attempt is launched under a spec whose file is refused now.
* An event about another attempt than the newest is old news and changes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trainerd.supervisor.machine import attempts, faults, requests, restarts, slots, specs, waits
from trainerd.supervisor.machine.decision import Absent, AnyState, Transition, unchanged
from trainerd.supervisor.machine.states import Job, Queued
from trainerd.supervisor.machine.table import TABLE, Cell

if TYPE_CHECKING:
    from trainerd.supervisor.machine.job_events import Event

__all__ = ["TABLE", "Absent", "AnyState", "Cell", "Transition", "decide"]

# Importing these has filled the table.
_ANSWERED_IN = (attempts, faults, requests, restarts, slots, specs, waits)


def decide(name: str, job: Job | None, event: Event, now: float) -> Transition:
    """Answer an event.

    Args:
        name: Of the job.
        job: The job as it is, None if no job has that name.
        event: What happened.
        now: Seconds since the epoch.
    """
    attempt = getattr(event, "attempt", None)
    if job is not None and attempt is not None and attempt != job.attempt:
        return unchanged(job, f"it is about attempt {attempt}, and the newest is {job.attempt}")
    if job is None:
        blank = Job(name, Queued(), reason="", since_wall_s=now)
        decision = TABLE[Absent, type(event)].decide(blank, Absent(), event, now)
        return replace(decision, job=None) if decision.is_ignored else decision
    return TABLE[type(job.state), type(event)].decide(job, job.state, event, now)
