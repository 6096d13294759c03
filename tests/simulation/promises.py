"""What must always hold in the simulated world, counted beside the machine and in the words of the
documents."""

from __future__ import annotations

from simulated_supervisor import PROBE_S

from trainerd.contract.resolved import ResolvedJob
from trainerd.supervisor.machine import job_events as happened
from trainerd.supervisor.machine.outcome import OutcomeKind, Retry
from trainerd.supervisor.machine.repeats import SAME_MAX
from trainerd.supervisor.machine.states import (
    Draining,
    Finished,
    Parked,
    Queued,
    Rejected,
    Starting,
    Stopped,
)
from trainerd.supervisor.scheduler import Capacity

CAPACITY = Capacity(cpus=3.0, gpus=1, memory_bytes=1000)
CHECK_S = 2.0
RESCAN_EVERY_S = 20.0
LATE_S = RESCAN_EVERY_S + 5.0
"""How long the supervisor may take to see a change of the folder: a wake-up may be lost, and a scan may
fail."""
ASKED_WITHIN_S = PROBE_S
"""How long it may take until an attempt that is to drain is told so: a try to signal it may fail."""
DRAIN_SLACK_S = 4 * PROBE_S + 2.0
"""What may come on top of the grace period: the shim takes so long to come up, and words of it are lost."""


class BrokenInvariantError(AssertionError):
    pass


class Promises:
    """Checks a `World`, of which it is a part."""

    def require(self, holds: bool, text: str) -> None:
        if not holds:
            raise BrokenInvariantError(text)

    def check_time(self) -> None:
        """What a decision does not show: that what was decided is done in time."""
        self.later(CHECK_S, self.check_time)
        if self.life is None:
            return
        if int(self.loop.time()) % RESCAN_EVERY_S == 0:
            self.life.loop.rescan()
        for name, job in self.ledger.jobs.items():
            if isinstance(job.state, Draining):
                self.check_drain(name, job)

    def check_step(self, step) -> None:
        """Keep count beside the machine, in the words of the promise, and compare."""
        name, event, after = step.name, step.event, step.after
        if after is None:
            self.stopped_by_user.discard(name)
            self.held_by_user.discard(name)
            self.failures.pop(name, None)
            self.best.pop(name, None)
            self.not_before.pop(name, None)
            self.same.pop(name, None)
            return
        if isinstance(event, happened.ResumeAsked | happened.RestartAsked):
            self.stopped_by_user.discard(name)
        if isinstance(event, happened.ResumeAsked | happened.RestartAsked) and not step.is_ignored:
            self.held_by_user.discard(name)
        if isinstance(event, happened.HoldAsked):
            self.held_by_user.add(name)
        if isinstance(event, happened.PreemptionAsked) and event.by in self.ledger.jobs:
            by = self.ledger.jobs[event.by]
            is_higher = by.spec.priority > step.before.spec.priority
            self.require(is_higher, f"{name}: makes room for {event.by}, which has no higher priority")
            self.require(
                isinstance(by.state, Queued), f"{name}: makes room for {event.by}, which does not wait"
            )
        is_new_try = not step.is_ignored and isinstance(
            event, happened.ResumeAsked | happened.RetryAsked | happened.RestartAsked
        )
        if is_new_try and after.state.NAME == "queued":
            self.forgive(name)
        if isinstance(event, happened.SpecAccepted) and (
            step.before is None
            or step.before.spec is None
            or step.before.spec.spec_digest != event.spec.spec_digest
        ):
            self.forgive(name)
        if isinstance(event, happened.ProgressSeen):
            self.best[name], self.failures[name] = event.step, 0
            is_full = (after.failures, after.stalls, after.repeat) == (0, 0, None)
            self.require(is_full, f"{name}: its budget is not full though it moves")
            self.attempts[name][event.attempt].has_moved = True
        if isinstance(event, happened.LaunchFailed) and not isinstance(step.before.state, Draining):
            if not event.is_for_want_of_space:
                self.failures[name] = self.failures.get(name, 0) + 1
            self.not_before[name] = self.now + 0.8
        if isinstance(event, happened.AttemptEnded):
            self.count_ending(step)
        if isinstance(after.state, Parked) and not isinstance(step.before.state, Parked):
            self.require(self.may_be_parked(name, event, after), f"{name}: parked while moving")
        if isinstance(event, happened.SlotGranted):
            self.require(isinstance(after.state, Starting), f"{name}: granted and not starting")
            self.require(name not in self.held_by_user, f"{name}: launched while it was held")
            self.check_order(name, step)
            is_affordable = self.failures.get(name, 0) < after.spec.restart.budget
            self.require(is_affordable, f"{name}: launched with its budget spent")
            is_due = self.now >= self.not_before.get(name, 0.0) - 1e-6
            self.require(is_due, f"{name}: launched before its wait was over")
            self.require(
                isinstance(self.specs.get(name), ResolvedJob) or self.is_late(), f"{name}: no good spec"
            )

    def check_order(self, name: str, step) -> None:
        """What comes after others begins under its spec when they are finished, and a group stays small."""
        spec = step.after.spec
        if step.before.attempt_digest != spec.spec_digest:
            self.require(not self.waits_for(step.after), f"{name}: launched before those that it is after")
        if spec.group is not None:
            live = [job for job in self.ledger.jobs.values() if job.is_live and job.spec.group == spec.group]
            self.require(len(live) <= spec.group.max_running, f"{name}: too many of its group run")

    def waits_for(self, job) -> list[str]:
        """Return the names of those that a job is after and that are not finished."""
        found = ((other, self.ledger.jobs.get(other)) for other in job.spec.after)
        return [name for name, other in found if other is None or not isinstance(other.state, Finished)]

    def may_be_parked(self, name: str, event, after) -> bool:
        """Whether its budget is spent, its spec says so, or the same failure came again from an older
        checkpoint."""
        if self.failures.get(name, 0) >= after.spec.restart.budget:
            return True
        if not isinstance(event, happened.AttemptEnded):
            return False
        outcome = event.outcome
        times = self.same.get(name, ((), 0))[1]
        if outcome.kind is OutcomeKind.NON_FINITE_LOSS:
            return outcome.retry is Retry.ON_REQUEST or times > 1
        return times > SAME_MAX

    def is_late(self) -> bool:
        """Whether the folder may have changed since the ledger last saw it."""
        return self.has_full_disk or self.now < max(self.folder_changed_s, self.able_since_s) + LATE_S

    def count_ending(self, step) -> None:
        name, outcome = step.name, step.event.outcome
        attempt = self.attempts[name][step.event.attempt]
        moved = attempt.has_moved or (outcome.step or -1) > self.best.get(name, -1)
        self.best[name] = max(self.best.get(name, -1), outcome.step or -1)
        was_asked = isinstance(step.before.state, Draining)
        if moved:
            self.same.pop(name, None)
        if outcome.failure and not was_asked:
            what, times = self.same.get(name, ((), 0))
            this = (outcome.failure, outcome.step)
            self.same[name] = (this, times + 1 if what == this else 1)
        if moved:
            self.failures[name] = 0
        elif outcome.kind is not OutcomeKind.FINISHED and not was_asked and not attempt.killed_by_reboot:
            self.failures[name] = self.failures.get(name, 0) + 1
            self.not_before[name] = self.now + 0.8

    def check_drain(self, name: str, job) -> None:
        """A drain is asked for soon, and ends within the grace period, counted from when that was
        possible."""
        if self.has_full_disk:
            return
        attempt = self.attempts.get(name, {}).get(job.attempt)
        lasts_s = self.now - max(job.since_wall_s, self.able_since_s)
        is_late = lasts_s > job.spec.grace_s + DRAIN_SLACK_S
        self.require(not is_late, f"{name}: drains for {lasts_s:.0f} s: {attempt}")
        if attempt is not None and attempt.may_run and lasts_s > ASKED_WITHIN_S:
            is_asked = attempt.signals > 0 or self.now - attempt.up_s < ASKED_WITHIN_S
            self.require(is_asked, f"{name}: drains, and attempt {job.attempt} was not asked to")

    def check_capacity(self, jobs) -> None:
        live = [job for job in jobs.values() if job.is_live]
        gpus = [gpu for job in live for gpu in job.state.gpus]
        self.require(len(gpus) == len(set(gpus)), f"a gpu is given to two jobs: {gpus}")
        self.require(sum(job.held.cpus for job in live) <= CAPACITY.cpus + 1e-9, "more cpus than there are")
        for job in live:
            self.require(len(job.state.gpus) in {0, job.held.gpus}, f"{job.name}: the wrong number of gpus")

    def check_end(self) -> None:
        """Nothing is forgotten, and everybody has got somewhere."""
        self.require(self.ledger is not None, "the supervisor is alive")
        self.require(set(self.ledger.jobs) == set(self.specs), "jobs are the specs")
        self.require(dict(self.ledger.jobs) == self.journal.jobs(), "the journal holds what is in memory")
        for name, job in self.ledger.jobs.items():
            is_at_rest = isinstance(job.state, Finished | Parked | Rejected | Stopped)
            is_held = isinstance(job.state, Queued) and job.is_held and name in self.held_by_user
            has_begun = job.spec is not None and job.attempt_digest == job.spec.spec_digest
            is_waiting = isinstance(job.state, Queued) and not has_begun and bool(self.waits_for(job))
            if is_waiting and not is_held:
                self.require(name in self.ledger.waits, f"{name}: waits for others and does not say so")
            self.require(is_at_rest or is_held or is_waiting, f"{name}: still {job.state}: {job.reason}")
            if isinstance(job.state, Stopped):
                self.require(name in self.stopped_by_user, f"{name}: stopped by nobody")
            if isinstance(job.state, Finished):
                self.require(
                    job.state.spec_digest == self.specs[name].spec_digest, f"{name}: finished something else"
                )
                training = self.training[name]
                is_stuck = training.stuck_at is not None and training.stuck_at < training.steps_total
                self.require(not is_stuck, f"{name}: finished although it is stuck")
            running = [attempt.number for attempt in self.attempts.get(name, {}).values() if attempt.may_run]
            self.require(not running, f"{name}: attempts {running} still run")
