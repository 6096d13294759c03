"""The world around the real loop, monitors, machine, policies, scheduler and journal: specs, attempts,
people, clocks.

Seeded: one number makes one schedule, and the same number makes it again. Time is virtual. The supervisor may
die wherever it touches the world.
"""

from __future__ import annotations

import asyncio
import itertools
import random

from promises import CAPACITY, CHECK_S, Promises
from simulated_people import People
from simulated_physics import Fate, SimulatedAttempt, Training
from simulated_supervisor import Life, SupervisorDiedError, resolve
from virtual_loop import VirtualLoop

from trainerd.contract.resolved import ResolvedJob
from trainerd.supervisor.journal.journal import Journal
from trainerd.supervisor.machine.states import (
    Finished,
    Parked,
    Queued,
    Rejected,
    Stopped,
)

BEGIN_WALL_S = 1_000_000.0


class World(People, Promises):
    def __init__(self, seed: int, *, journal_path=":memory:") -> None:
        self.rng = random.Random(seed)
        self.loop = VirtualLoop()
        self.failure: BaseException | None = None
        self.loop.set_exception_handler(self._note_error)
        self.specs: dict[str, ResolvedJob | str] = {}
        self.versions = itertools.count(1)
        self.training: dict[str, Training] = {}
        self.attempts: dict[str, dict[int, SimulatedAttempt]] = {}
        self.journal = Journal(journal_path)
        self.life: Life | None = None
        self.lives = 0
        self.deaths = 0
        self.is_calm = False
        self.has_full_disk = False
        self.able_since_s = self.now
        self.folder_changed_s = self.now
        self.stopped_by_user: set[str] = set()
        self.held_by_user: set[str] = set()
        self.failures: dict[str, int] = {}
        self.best: dict[str, int] = {}
        self.not_before: dict[str, float] = {}
        self.same: dict[str, tuple[tuple, int]] = {}
        self.freezes: list[float] = []
        self.stalls_ended = 0
        self.commands = 0
        self.dies_at_command = 0
        self.trace: list[str] = []
        self.later(CHECK_S, self.check_time)

    # --- time ---

    @property
    def now(self) -> float:
        return BEGIN_WALL_S + self.loop.time()

    @property
    def ledger(self):
        return self.life.loop.ledger if self.life is not None else None

    def wall_s(self) -> float:
        return self.now

    def monotonic_s(self) -> float:
        return self.monotonic_at(self.now)

    def monotonic_at(self, moment: float) -> float:
        """The clock that no process sees jump, as the machine was frozen meanwhile."""
        return moment + 3600.0 * sum(begin <= moment for begin in self.freezes)

    def later(self, delay_s: float, action) -> None:
        self.loop.call_later(delay_s, action)

    def run_for(self, duration_s: float) -> None:
        self.loop.run_until(self.loop.time() + duration_s)
        if self.failure is not None:
            raise self.failure

    def settle(self, limit_s: float) -> None:
        """Run until nothing can happen any more, and for at least a while; at most for so long."""
        end = self.now + limit_s
        self.run_for(400.0)
        while self.now < end and not self.is_settled():
            self.run_for(50.0)

    def close(self) -> None:
        """Leave nothing behind that the interpreter would complain about."""
        if self.life is not None:
            self.life.end()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.set_exception_handler(lambda _loop, _context: None)
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        self.journal.close()

    def fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self.loop.stop()

    def _note_error(self, _loop, context) -> None:
        error = context.get("exception")
        if not isinstance(error, SupervisorDiedError):
            self.fail(error or AssertionError(context["message"]))

    def is_settled(self) -> bool:
        if self.ledger is None or self.is_late() or not self.life.loop.inbox.is_empty:
            return False
        at_rest = Finished | Parked | Rejected | Stopped
        return all(
            isinstance(job.state, at_rest) or (isinstance(job.state, Queued) and job.is_held)
            for job in self.ledger.jobs.values()
        )

    def note(self, text: str) -> None:
        self.trace.append(f"{self.loop.time():9.2f}  {text}")

    def chance(self, probability: float) -> bool:
        return not self.is_calm and probability > 0 and self.rng.random() < probability

    # --- lives and deaths of the supervisor ---

    def start_supervisor(self) -> None:
        if self.life is not None:
            return
        self.lives += 1
        self.able_since_s = self.now
        self.note(f"supervisor {self.lives} starts")
        self.life = Life(self, self.lives, CAPACITY)

    def bury(self, life: Life) -> None:
        self.note(f"supervisor {life.number} is dead")
        self.deaths += 1
        self.life = None
        life.end()
        self.later(self.rng.choice([0.0, 0.5, 5.0, 60.0]), self.start_supervisor)

    def kill_supervisor(self) -> None:
        if self.life is not None:
            self.bury(self.life)

    def counts_to_death(self) -> bool:
        self.commands += 1
        return self.commands == self.dies_at_command

    def note_step(self, step) -> None:
        after = step.after.state.NAME if step.after else "forgotten"
        self.note(f"{step.name}: {type(step.event).__name__} -> {after}: {step.reason}")
        self.check_step(step)

    # --- attempts ---

    def launch(self, life: int, name: str, kept) -> None:
        self.require(kept.number not in self.attempts.setdefault(name, {}), f"{name}: {kept.number} twice")
        training, job = self.training[name], kept.job
        attempt = SimulatedAttempt(
            name,
            kept.number,
            kept.spec_digest,
            self.fate(training),
            training,
            job.grace_s,
            life,
            job.on_nonfinite_loss,
        )
        if job.priority and job.stall_timeout_s != "auto":
            attempt.beat_every_s = job.stall_timeout_s - 6.0  # just below what is allowed
        if attempt.fate.ending == "hang" and job.stall_timeout_s == "auto":
            attempt.fate.ending = "crash"
        self.attempts[name][kept.number] = attempt
        self.note(f"{name}: attempt {kept.number} launched, to {attempt.fate.ending}")
        self.later(attempt.fate.shim_delay_s, lambda: self.shim_comes_up(attempt))

    def seal(self, name: str, number: int) -> None:
        """Under the lock: a launch of that number can never happen."""
        self.attempts.setdefault(name, {})[number] = replace_void(name, number)

    def fate(self, training: Training) -> Fate:
        rng = self.rng
        endings = [
            "crash",
            "crash",
            "kill",
            "finish",
            "finish",
            "self-drain",
            "lying-drain",
            "lost",
            "no-space",
            "nan",
            "hang",
            "hang",
        ]
        ending = rng.choice(endings)
        if self.chance(0.03):
            ending = "reject"
        if self.is_calm:
            ending = rng.choice(["crash", "finish", "self-drain"])
        return Fate(
            shim_delay_s=rng.choice([0.0, 0.1, 2.0]),
            ends_after_steps=rng.randint(0, 30),
            ending=ending,
            drain_s=rng.choice([0.1, 1.0, 20.0]),
            drains_well=rng.random() < 0.8,
        )

    def shim_comes_up(self, attempt: SimulatedAttempt) -> None:
        if attempt.is_void:
            return
        twins = [other for other in self.attempts[attempt.name].values() if other.may_run]
        self.require(not twins, f"{attempt.name}: attempt {attempt.number} runs beside {twins}")
        attempt.is_up, attempt.up_s = True, self.now
        attempt.began_at_step = attempt.training.checkpoint_step
        self.tell(attempt)
        fate, training = attempt.fate, attempt.training
        needed = training.steps_total - attempt.began_at_step
        is_able = training.stuck_at is None or training.stuck_at >= training.steps_total
        if fate.ending == "finish" and is_able:
            fate.ends_after_steps = max(needed, 0)
        elif fate.ending == "finish":
            fate.ending = "crash"
        if training.spoilt_step is not None and training.spoilt_step == attempt.began_at_step:
            fate.ending, fate.ends_after_steps = "crash", 2
        if fate.ending == "hang" and not training.has_session:
            fate.ending = "crash"
        if fate.ending != "hang":
            self.later(fate.ends_after_steps * 1.0 + 0.5, lambda: self.end(attempt, fate.ending))
        if attempt.signals:
            self.begin_drain(attempt)

    def end(self, attempt: SimulatedAttempt, ending: str) -> None:
        if attempt.is_over:
            return
        attempt.conclude(ending, self.now)
        self.tell(attempt)

    def signal(self, attempt: SimulatedAttempt) -> None:
        attempt.signals += 1
        is_new = attempt.signals <= 1 + self.deaths
        self.require(is_new, f"{attempt.name}: told to stop {attempt.signals} times")
        if attempt.is_up:
            self.begin_drain(attempt)

    def begin_drain(self, attempt: SimulatedAttempt) -> None:
        if attempt.stop_requested_s is not None:
            return
        attempt.stop_requested_s = self.now
        fate = attempt.fate
        is_quick = fate.drain_s <= attempt.grace_s
        ending = ("drained" if fate.drains_well else "crash") if is_quick else "grace"
        self.later(min(fate.drain_s, attempt.grace_s), lambda: self.end(attempt, ending))

    def end_stalled(self, attempt: SimulatedAttempt) -> None:
        what = f"{attempt.name}: attempt {attempt.number}"
        self.require(attempt.is_hanging(self.now), f"{what} is ended while it moves")
        self.require(attempt.stall is not None, f"{what} is ended and no record says why")
        self.stalls_ended += 1
        self.later(0.2, lambda: self.end(attempt, "stalled"))

    def freeze(self, _name: str) -> None:
        """The whole machine stands still for an hour, and the clock goes on."""
        self.note("the machine is frozen for an hour")
        self.freezes.append(self.now)

    def tell(self, attempt: SimulatedAttempt) -> None:
        """Those who watch see a change; now and then they do not, until they look again."""
        if self.chance(0.1):
            return
        for watcher in attempt.watchers:
            resolve(watcher)
        attempt.watchers.clear()

    def reboot(self) -> None:
        """Everything dies at once; pids mean nothing any more."""
        self.note("the machine restarts")
        self.kill_supervisor()
        for attempts in self.attempts.values():
            for attempt in attempts.values():
                if attempt.may_run:
                    attempt.killed_by_reboot = True
                    self.end(attempt, "lost")
                elif not attempt.is_over:
                    attempt.is_void = True


def replace_void(name: str, number: int) -> SimulatedAttempt:
    fate = Fate(0.0, 0, "crash", 0.0, drains_well=True)
    return SimulatedAttempt(name, number, "", fate, Training(0, None, has_session=True), 0.0, 0, is_void=True)
