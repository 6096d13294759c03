"""What the machine answers with, and the few ways of saying it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from trainerd.supervisor.machine.commands import Command
from trainerd.supervisor.machine.states import Job, Queued, Rejected, State


@dataclass(frozen=True)
class Absent:
    """There is no such job: the state before the first and after the last."""

    NAME: ClassVar[str] = "absent"


AnyState = State | Absent


@dataclass(frozen=True)
class Transition:
    """What is to be recorded and then done.

    Attributes:
        job: The job as it is now; None if there is none (any more).
        reason: Why this was decided: one sentence.
        commands: What to do, in this order, once the decision is durable.
        is_ignored: Whether the event changes nothing, so that nothing need be recorded.
    """

    job: Job | None
    reason: str
    commands: tuple[Command, ...] = ()
    is_ignored: bool = False


def unchanged(job: Job | None, reason: str) -> Transition:
    """Decide that nothing changes."""
    return Transition(job, reason, is_ignored=True)


def enter(job: Job, state: State, reason: str, now: float, *commands: Command) -> Transition:
    """Decide that the job enters a state. A reason that begins with the word of the state loses it."""
    reason = reason.removeprefix(f"{state.NAME}: ")
    return Transition(replace(job, state=state, reason=reason, since_wall_s=now), reason, commands)


def queue(job: Job, reason: str, now: float) -> Transition:
    """Queue a job, unless its spec is refused now."""
    if job.refusal is not None:
        return enter(job, Rejected("spec"), f"{reason}; and the spec is refused: {job.refusal}", now)
    return enter(job, Queued(), reason, now)


def forgiven(job: Job) -> Job:
    """Return the job with a full restart budget: it has made progress, or its user has changed something."""
    return replace(job, failures=0, stalls=0, repeat=None)


def stay(job: Job, reason: str, *commands: Command) -> Transition:
    """Decide that something about the job changes while its state remains."""
    return Transition(job, reason, commands)


def forget(reason: str) -> Transition:
    """Decide that there is no such job any more."""
    return Transition(None, reason)
