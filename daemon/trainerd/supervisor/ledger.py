"""All jobs, and the only way to change one: decide, record, and only then tell what is to be done.

Synchronous and without effects besides the journal, so that the simulation drives this very code.

Invariants: what is in memory is what the journal holds; if the journal cannot be written, neither changes.
Slots are not kept: who holds one follows from the states.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trainerd.errors import TrainerdError
from trainerd.supervisor.containment import HandlingPage, fault_of
from trainerd.supervisor.dependencies import blocked_jobs, is_blocked
from trainerd.supervisor.journal.journal import EndingRow, Entry, check_encodable
from trainerd.supervisor.log.narration import event_kind, next_action
from trainerd.supervisor.machine import decide
from trainerd.supervisor.machine.job_events import (
    AttemptEnded,
    FaultSeen,
    NeverFits,
    PreemptionAsked,
    SlotGranted,
)
from trainerd.supervisor.machine.states import Draining, Faulted, Job, Queued, Running, Starting
from trainerd.supervisor.preemption import Occupant, preemptions
from trainerd.supervisor.scheduler import Request, Schedule, SlotOwner, schedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trainerd.contract.clock import Clock
    from trainerd.supervisor.journal.journal import Journal
    from trainerd.supervisor.machine.commands import Command
    from trainerd.supervisor.machine.job_events import Event
    from trainerd.supervisor.scheduler import Capacity


@dataclass(frozen=True)
class Step:
    """What became of one event.

    Attributes:
        name: The job.
        event: What happened.
        before: The job before it, None if there was none.
        after: The job after it, None if there is none any more.
        reason: Why.
        commands: What is to be done now.
        is_ignored: Whether the event changed nothing.
    """

    name: str
    event: Event
    before: Job | None
    after: Job | None
    reason: str
    commands: tuple[Command, ...] = ()
    is_ignored: bool = False


class Ledger:
    """The jobs of one state folder.

    Args:
        journal: Where they are kept.
        capacity: What the machine has for them.
        clock: Dates decisions.
        page: Says what is being handled, for the next supervisor; None for none.
    """

    def __init__(
        self, journal: Journal, capacity: Capacity, clock: Clock, *, page: HandlingPage | None = None
    ) -> None:
        self.page = page if page is not None else HandlingPage(None)
        self._journal = journal
        self._capacity = capacity
        self._clock = clock
        self._jobs = journal.jobs()
        self._schedule = Schedule()
        self._waits: Mapping[str, str] | None = None
        self._grants_slots = False
        self._is_schedule_due = True

    @property
    def grants_slots(self) -> bool:
        """Whether queued jobs are started: not before recovery is over, and not while shutting down."""
        return self._grants_slots

    @grants_slots.setter
    def grants_slots(self, answer: bool) -> None:
        self._is_schedule_due |= answer != self._grants_slots
        self._grants_slots = answer

    @property
    def memory_bytes(self) -> int | None:
        """What memory there is for jobs, None if it is not limited."""
        return self._capacity.memory_bytes

    @property
    def jobs(self) -> Mapping[str, Job]:
        """Every job, by name."""
        return self._jobs

    @property
    def waits(self) -> Mapping[str, str]:
        """Why each queued job waits for a slot, or for other jobs, by name."""
        if self._waits is None:
            blocked = blocked_jobs(self._jobs)
            ours = {name: why for name, why in blocked.items() if not self._jobs[name].is_held}
            self._waits = {**self._schedule.waits, **ours}
        return self._waits

    def apply(self, events: Iterable[tuple[str, Event]]) -> tuple[Step, ...]:
        """Decide about events and about who may start then; record all of it in one transaction.

        Raises:
            SpaceError: It could not be recorded; nothing has changed.
        """
        now = self._clock.wall_s()
        drafts = dict(self._jobs)
        steps = [self._taken(drafts, name, event, now) for name, event in events]
        # With thousands in the queue it costs milliseconds to ask, and most events change no job's turn.
        self._is_schedule_due |= any(_moves_slots(step) for step in steps)
        answer = self._schedule
        if self._is_schedule_due:
            answer = schedule(self._capacity, _owners(drafts), _requests(drafts) if self.grants_slots else ())
            for name, why in answer.misfits.items():
                steps.append(self._taken(drafts, name, NeverFits(why), now))
            for name, gpus in answer.grants:
                steps.append(self._taken(drafts, name, SlotGranted(gpus), now))
            waiting = _requests(drafts) if self.grants_slots else []
            for name, by in preemptions(self._capacity, _occupants(drafts), waiting):
                steps.append(self._taken(drafts, name, PreemptionAsked(by), now))
        steps = self._recorded(drafts, steps, now)
        self._jobs = drafts
        if answer is not self._schedule or any(not step.is_ignored for step in steps):
            self._waits = None
        self._schedule = answer
        # No job that was refused now fits until something else changes: one that got a slot is counted
        # already.
        self._is_schedule_due = False
        return tuple(steps)

    def _taken(self, drafts: dict[str, Job], name: str, event: Event, now: float) -> Step:
        """Decide about an event; where that fails, about the fault."""
        what = f"{type(event).__name__} {getattr(event, 'attempt', '')}".rstrip()
        try:
            with self.page.handling(name, what):
                return _take(drafts, name, event, now)
        except Exception as error:
            if isinstance(event, FaultSeen):
                raise
            return _take(drafts, name, fault_of(error, f"deciding about {what}"), now)

    def _recorded(self, drafts: dict[str, Job], steps: list[Step], now: float) -> list[Step]:
        """Record decisions; return them, with a fault in the place of each that cannot be put into words."""
        try:
            entries = [_entry(step) for step in steps if not step.is_ignored]
            if entries:
                self._journal.commit(entries, wall_s=now)
        except (TrainerdError, OSError, sqlite3.Error):
            raise
        except Exception:
            # Found again one by one: what cannot be encoded is a fault of one job, and not of the others.
            sound = [self._encodable(drafts, step, now) for step in steps]
            if sound == steps:
                raise
            self._journal.commit([_entry(step) for step in sound if not step.is_ignored], wall_s=now)
            return sound
        return steps

    def _encodable(self, drafts: dict[str, Job], step: Step, now: float) -> Step:
        try:
            if not step.is_ignored:
                check_encodable(_entry(step))
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            drafts[step.name] = replace(self._jobs.get(step.name) or _blank(step.name, now), name=step.name)
            return _take(drafts, step.name, fault_of(error, "recording a decision"), now)
        return step


def _blank(name: str, now: float) -> Job:
    return Job(name, Queued(), reason="", since_wall_s=now)


def _take(drafts: dict[str, Job], name: str, event: Event, now: float) -> Step:
    before = drafts.get(name)
    decision = decide(name, before, event, now)
    if decision.job is not None:
        drafts[name] = decision.job
    else:
        drafts.pop(name, None)
    return Step(name, event, before, decision.job, decision.reason, decision.commands, decision.is_ignored)


def _moves_slots(step: Step) -> bool:
    """Return whether a step changes who waits for a slot or who holds one."""
    return not step.is_ignored and _place(step.before) != _place(step.after)


def _place(job: Job | None) -> object:
    """Return what the scheduler sees of a job, None if it has no say in who may start."""
    if job is None:
        return None
    if job.may_have_processes:
        return job.held, _gpus(job)
    if isinstance(job.state, Queued) and job.spec is not None and not job.is_held:
        spec = job.spec
        return spec.resources, spec.priority, job.since_wall_s, spec.after, spec.group
    return None


def _owners(jobs: Mapping[str, Job]) -> list[SlotOwner]:
    return [_owner(job) for job in jobs.values() if job.may_have_processes]


def _owner(job: Job) -> SlotOwner:
    group = job.spec.group if job.spec is not None else None
    return SlotOwner(job.held, _gpus(job), group.name if group is not None else None)


def _occupants(jobs: Mapping[str, Job]) -> list[Occupant]:
    return [
        Occupant(
            job.name,
            _owner(job),
            priority=job.spec.priority if job.spec is not None else 0,
            since_wall_s=job.since_wall_s,
            is_leaving=isinstance(job.state, Draining),
            can_leave=isinstance(job.state, Starting | Running),
        )
        for job in jobs.values()
        if job.may_have_processes
    ]


def _gpus(job: Job) -> tuple[int, ...]:
    state = job.state
    if isinstance(state, Starting | Running | Draining):
        return state.gpus
    return state.devices if isinstance(state, Faulted) else ()


def _requests(jobs: Mapping[str, Job]) -> list[Request]:
    return [
        Request(job.name, job.spec.resources, job.spec.priority, job.since_wall_s, job.spec.group)
        for job in jobs.values()
        if isinstance(job.state, Queued)
        and job.spec is not None
        and not job.is_held
        and not is_blocked(jobs, job)
    ]


def _entry(step: Step) -> Entry:
    after = step.after
    data: dict[str, Any] = {"event": type(step.event).__name__}
    if after is not None:
        data |= {"state": after.state.NAME, "attempt": after.attempt}
    ending = None
    if isinstance(step.event, FaultSeen):
        data["traceback"] = list(step.event.detail)
    if isinstance(step.event, AttemptEnded):
        data["outcome"] = step.event.outcome.kind.value
        action = next_action(after, checkpoint=step.event.outcome.checkpoint)
        ending = EndingRow(step.event.attempt, step.event.outcome, action)
    started = after.attempt if isinstance(step.event, SlotGranted) and after is not None else None
    kind = event_kind(step.before, step.event, after)
    return Entry(step.name, after, kind, step.reason, data, attempt_started=started, ending=ending)
