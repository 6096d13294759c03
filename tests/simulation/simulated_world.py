"""The world around the real machine, policies, scheduler and journal: specs, attempts, a supervisor that may die.

Seeded: one number makes one schedule, and the same number makes it again. What the supervisor's loop does with
commands is done here by hand, with a chance to die before each of them.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import replace

from simulated_physics import Fate, SimulatedAttempt, Training

from trainerd.contract.policy import Resources, RestartPolicy
from trainerd.contract.records import StallRecord
from trainerd.contract.resolved import ResolvedJob
from trainerd.errors import SpaceError
from trainerd.supervisor.attempt.stall import Sight, Watch, after_look
from trainerd.supervisor.journal.journal import Journal
from trainerd.supervisor.ledger import Ledger
from trainerd.supervisor.machine import job_events as happened
from trainerd.supervisor.machine.commands import (
    DrainAttempt,
    EndStalledAttempt,
    LaunchAttempt,
    ObserveAttempt,
    WakeLater,
)
from trainerd.supervisor.machine.outcome import OutcomeKind, Retry, judge
from trainerd.supervisor.machine.repeats import SAME_MAX
from trainerd.supervisor.machine.states import (
    BackingOff,
    Draining,
    Finished,
    Parked,
    Paused,
    Queued,
    Rejected,
    Running,
    Starting,
    Stopped,
)
from trainerd.supervisor.reconcile import spec_events
from trainerd.supervisor.scheduler import Capacity
from trainerd.supervisor.specs.view import Accepted, FolderView, Refused

CAPACITY = Capacity(cpus=3.0, gpus=1, memory_bytes=1000)
PROBE_S = 10.0
REQUESTS = (
    happened.StopAsked,
    happened.ResumeAsked,
    happened.HoldAsked,
    happened.RetryAsked,
    happened.SpecAccepted,
    happened.SpecRefused,
    happened.SpecVanished,
)
"""What is not kept when it cannot be recorded: people are told, and the folder is looked at again."""
TICK_S = 1.0
DRAIN_SLACK_S = 4 * PROBE_S + 2.0
"""What may come on top of the grace period: the shim takes so long to come up, and words of it are lost."""


class BrokenInvariantError(AssertionError):
    pass


class SupervisorDiedError(Exception):
    """The simulated SIGKILL: unwinds to where nothing of the supervisor is left."""


class FullableJournal(Journal):
    """The real journal, on a disk that may be full."""

    is_full = False

    def commit(self, entries, *, wall_s):
        if self.is_full:
            raise SpaceError("simulated: no space left")
        super().commit(entries, wall_s=wall_s)


class World:
    def __init__(self, seed: int, *, journal_path=":memory:") -> None:
        self.rng = random.Random(seed)
        self.now = 1_000_000.0
        self.agenda: list = []
        self.serial = itertools.count()
        self.specs: dict[str, ResolvedJob | str] = {}
        self.versions = itertools.count(1)
        self.training: dict[str, Training] = {}
        self.attempts: dict[str, dict[int, SimulatedAttempt]] = {}
        self.journal = FullableJournal(journal_path)
        self.ledger: Ledger | None = None
        self.inbox: list = []
        self.delayed = 0
        self.is_folder_news = False
        self.life = 0
        self.deaths = 0
        self.is_calm = False
        self.has_full_disk = False
        self.able_since_s = self.now
        self.is_shutting_down = False
        self.stopped_by_user: set[str] = set()
        self.held_by_user: set[str] = set()
        self.failures: dict[str, int] = {}
        self.best: dict[str, int] = {}
        self.not_before: dict[str, float] = {}
        self.same: dict[str, tuple[tuple, int]] = {}
        self.watches: dict[tuple[str, int], Watch] = {}
        self.freezes: list[float] = []
        self.stalls_ended = 0
        self.commands = 0
        self.dies_at_command = 0
        self.trace: list[str] = []

    # --- time ---

    def wall_s(self) -> float:
        return self.now

    def monotonic_s(self) -> float:
        return self.monotonic_at(self.now)

    def monotonic_at(self, moment: float) -> float:
        """The clock that no process sees jump, as the machine was frozen meanwhile."""
        return moment + 3600.0 * sum(begin <= moment for begin in self.freezes)

    def later(self, delay_s: float, action) -> None:
        heapq.heappush(self.agenda, (self.now + delay_s, next(self.serial), action))

    def run_until(self, moment: float) -> None:
        while self.agenda and self.agenda[0][0] <= moment:
            self.now, _, action = heapq.heappop(self.agenda)
            action()
        self.now = moment

    def settle(self, limit_s: float) -> None:
        """Run until nothing can happen any more, and for at least a while; at most for so long."""
        end = self.now + limit_s
        self.run_until(self.now + 400.0)
        while self.now < end and not self.is_settled():
            self.run_until(self.now + 50.0)

    def is_settled(self) -> bool:
        if self.ledger is None or self.inbox or self.delayed or self.is_folder_news:
            return False
        at_rest = Finished | Parked | Rejected | Stopped
        return all(
            isinstance(job.state, at_rest) or (isinstance(job.state, Queued) and job.is_held)
            for job in self.ledger.jobs.values()
        )

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now - 1_000_000:9.2f}  {text}")

    def require(self, holds: bool, text: str) -> None:
        if not holds:
            raise BrokenInvariantError(text)

    def chance(self, probability: float) -> bool:
        return not self.is_calm and self.rng.random() < probability

    # --- the supervisor: what Loop and Monitor do, with deaths ---

    def start_supervisor(self) -> None:
        if self.ledger is not None:
            return
        self.life += 1
        self.able_since_s = self.now
        self.is_shutting_down = False
        self.note(f"supervisor {self.life} starts")
        self.inbox = []
        self.ledger = Ledger(self.journal, CAPACITY, self)
        try:
            self.recover()
            self.scan(is_first=True)
        except SupervisorDiedError:
            self.bury_supervisor()
        life = self.life
        self.later(TICK_S, lambda: self.tick(life))
        self.later(PROBE_S, lambda: self.probe_all(life))

    def bury_supervisor(self) -> None:
        self.note(f"supervisor {self.life} is dead")
        self.deaths += 1
        self.watches = {}
        self.ledger = None
        self.inbox = []
        self.later(self.rng.choice([0.0, 0.5, 5.0, 60.0]), self.start_supervisor)

    def kill_supervisor(self) -> None:
        if self.ledger is not None:
            self.bury_supervisor()

    def recover(self) -> None:
        for name, job in self.ledger.jobs.items():
            self.die_perhaps(0.02)
            if job.is_live:
                self.observe(name, job.attempt)
            elif isinstance(job.state, BackingOff | Paused):
                left_s = min(max(job.state.until_wall_s - self.now, 0.0), job.state.delay_s)
                self.wake(name, job.attempt, left_s)
        self.work()

    def die_perhaps(self, probability: float) -> None:
        if self.chance(probability):
            raise SupervisorDiedError

    def post(self, name: str, event) -> None:
        """Events may come twice; facts may come late: then the next probe finds them."""
        if self.ledger is None:
            return
        self.inbox.append((name, event))
        if self.chance(0.05):
            self.inbox.append((name, event))
        try:
            self.work()
        except SupervisorDiedError:
            self.bury_supervisor()

    def work(self) -> None:
        while self.ledger is not None and self.inbox:
            batch, self.inbox = self.inbox[:4], self.inbox[4:]
            self.decide(batch)

    def decide(self, batch) -> None:
        self.journal.is_full = self.has_full_disk
        self.die_perhaps(0.005)
        try:
            steps = self.ledger.apply(batch)
        except SpaceError:
            kept = [message for message in batch if not isinstance(message[1], REQUESTS)]
            self.is_folder_news = True
            self.later(2.0, self.rescan)
            life = self.life
            self.delayed += 1
            self.later(1.0, lambda: self.take_again(kept, life))
            return
        for step in steps:
            if not step.is_ignored:
                after = step.after.state.NAME if step.after else "forgotten"
                self.note(f"{step.name}: {type(step.event).__name__} -> {after}: {step.reason}")
                self.check_step(step)
        self.check_capacity()
        for step in steps:
            for command in step.commands:
                self.die_perhaps(0.02)
                self.commands += 1
                if self.commands == self.dies_at_command:
                    raise SupervisorDiedError
                self.carry_out(step.name, command)
        for step in steps:
            self.check_request(step)

    def take_again(self, messages, life: int) -> None:
        self.delayed -= 1
        if life == self.life and self.ledger is not None:
            try:
                self.decide(messages)
                self.work()
            except SupervisorDiedError:
                self.bury_supervisor()

    def carry_out(self, name: str, command) -> None:
        match command:
            case LaunchAttempt(number):
                self.launch(name, number)
            case ObserveAttempt(number):
                self.observe(name, number)
            case DrainAttempt(number):
                self.signal(name, number)
            case EndStalledAttempt(number):
                self.end_stalled(name, number)
            case WakeLater(number, delay_s):
                self.wake(name, number, delay_s)

    def wake(self, name: str, number: int, delay_s: float) -> None:
        life = self.life
        self.later(
            delay_s,
            lambda: self.post(name, happened.WaitEnded(number)) if life == self.life else None,
        )

    # --- attempts ---

    def launch(self, name: str, number: int) -> None:
        self.require(number not in self.attempts.setdefault(name, {}), f"{name}: attempt {number} twice")
        if self.has_full_disk or self.chance(0.03):
            is_space = self.has_full_disk
            self.inbox.append((name, happened.LaunchFailed(number, "simulated", is_space)))
            return
        job = self.ledger.jobs[name]
        training = self.training[name]
        if job.goes_back_to is not None:
            training.go_back(job.goes_back_to)
            self.die_perhaps(0.05)
        attempt = SimulatedAttempt(
            name,
            number,
            job.attempt_digest,
            self.fate(training),
            training,
            job.spec.grace_s,
            self.life,
            job.spec.on_nonfinite_loss,
        )
        if job.spec.priority and job.spec.stall_timeout_s != "auto":
            attempt.beat_every_s = job.spec.stall_timeout_s - 6.0  # just below what is allowed
        if attempt.fate.ending == "hang" and job.spec.stall_timeout_s == "auto":
            attempt.fate.ending = "crash"
        self.attempts[name][number] = attempt
        self.note(f"{name}: attempt {number} launched, to {attempt.fate.ending}")
        self.die_perhaps(0.02)
        self.later(attempt.fate.shim_delay_s, lambda: self.shim_comes_up(attempt))

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

    def signal(self, name: str, number: int) -> None:
        attempt = self.attempts.get(name, {}).get(number)
        if attempt is None or attempt.is_over or attempt.is_void:
            return
        attempt.signals += 1
        self.require(attempt.signals <= 1 + self.deaths, f"{name}: told to stop {attempt.signals} times")
        if attempt.is_up:
            self.begin_drain(attempt)
        self.inbox.append((name, happened.DrainSignalled(number)))

    def begin_drain(self, attempt: SimulatedAttempt) -> None:
        if attempt.stop_requested_s is not None:
            return
        attempt.stop_requested_s = self.now
        fate = attempt.fate
        is_quick = fate.drain_s <= attempt.grace_s
        ending = ("drained" if fate.drains_well else "crash") if is_quick else "grace"
        self.later(min(fate.drain_s, attempt.grace_s), lambda: self.end(attempt, ending))

    def look_for_stall(self, name: str, job) -> None:
        """What the monitor does every second, with the real watch."""
        attempt = self.attempts.get(name, {}).get(job.attempt)
        if attempt is None or not isinstance(job.state, Running) or job.state.is_stalled:
            return
        key = (name, job.attempt)
        watch = self.watches.get(key) or Watch(job.spec.stall_timeout_s, stalls=job.stalls)
        beat = attempt.heartbeat(self.now, clock=self.monotonic_at)
        if self.chance(0.02):
            beat = None
        self.watches[key], stall = after_look(
            watch, Sight((beat,), attempt.log_bytes(self.now)), self.monotonic_s()
        )
        if stall is not None and not self.chance(0.2):
            is_still = attempt.is_over or attempt.is_hanging(self.now)
            self.require(is_still, f"{name}: attempt {attempt.number} moves: {stall.reason}")
            self.post(name, happened.StallSeen(job.attempt, stall.reason))

    def end_stalled(self, name: str, number: int) -> None:
        attempt = self.attempts[name][number]
        if attempt.is_over:
            return
        self.require(attempt.is_hanging(self.now), f"{name}: attempt {number} is ended while it moves")
        self.stalls_ended += 1
        if attempt.stall is None:
            self.die_perhaps(0.05)
            attempt.stall = StallRecord(20.0, 20.0, "step", self.now)
        self.die_perhaps(0.05)
        self.later(0.2, lambda: self.end(attempt, "stalled"))

    def freeze(self, _name: str) -> None:
        """The whole machine stands still for an hour, and the clock goes on."""
        self.note("the machine is frozen for an hour")
        self.freezes.append(self.now)

    def tell(self, attempt: SimulatedAttempt) -> None:
        """The supervisor's watch sees a change; now and then it does not, until the next probe."""
        if self.ledger is not None and not self.chance(0.1):
            self.look(attempt.name, attempt.number)

    def observe(self, name: str, number: int) -> None:
        attempt = self.attempts.get(name, {}).get(number)
        if attempt is None:
            # Sealed under the lock: a launch of that number can never happen.
            self.attempts.setdefault(name, {})[number] = replace_void(name, number)
            self.inbox.append((name, happened.AttemptVoided(number)))
        elif attempt.is_up or attempt.is_void or self.rng.random() < 0.5:
            self.inbox += [(name, event) for event in self.facts(attempt)]

    def facts(self, attempt: SimulatedAttempt) -> list:
        if self.chance(0.05):
            return [happened.ObservationFailed(attempt.number, "simulated")]
        if attempt.is_void:
            return [happened.AttemptVoided(attempt.number)]
        if attempt.is_over:
            outcome = judge(attempt.evidence, now_wall_s=self.now)
            return [happened.AttemptEnded(attempt.number, outcome)]
        if attempt.is_up:
            found = [happened.AttemptSeen(attempt.number)]
            step = attempt.step_at(self.now)
            job = self.ledger.jobs.get(attempt.name)
            if job is not None and step > max(job.best_step, attempt.began_at_step):
                found.append(happened.ProgressSeen(attempt.number, step))
            return found
        if attempt.life != self.life:
            # Its shim may be on its way, or the supervisor may have died before it spawned one: sealed.
            attempt.is_void = True
            return [happened.AttemptVoided(attempt.number)]
        return []

    def look(self, name: str, number: int) -> None:
        for event in self.facts(self.attempts[name][number]):
            self.post(name, event)

    def probe_all(self, life: int) -> None:
        if life != self.life or self.ledger is None:
            return
        for name, job in tuple(self.ledger.jobs.items()):
            if self.ledger is not None and job.is_live:
                attempt = self.attempts.get(name, {}).get(job.attempt)
                if attempt is not None:
                    self.look(name, job.attempt)
        self.later(PROBE_S, lambda: self.probe_all(life))

    def tick(self, life: int) -> None:
        if life != self.life or self.ledger is None:
            return
        for name, job in tuple(self.ledger.jobs.items()):
            if self.ledger is None:
                return
            self.look_for_stall(name, job)
            self.check_drain(name)
            if isinstance(job.state, Paused) and job.state.has_waited and not self.has_full_disk:
                self.post(name, happened.SpaceBack())
        self.later(TICK_S, lambda: self.tick(life))

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

    # --- the jobs folder and its people ---

    def scan(self, *, is_first: bool = False) -> None:
        if self.ledger is None:
            return
        readings = {
            name: Refused(name, f"/jobs/{name}.yaml", spec) if isinstance(spec, str) else Accepted(spec)
            for name, spec in self.specs.items()
        }
        view = FolderView(readings)
        self.is_folder_news = False
        self.inbox += spec_events(self.ledger.jobs, view, find_attempt=self.find_attempt)
        self.work()
        if is_first and self.ledger is not None:
            self.ledger.grants_slots = True
            self.decide([])
            self.work()

    def find_attempt(self, name: str) -> tuple[int, bool]:
        numbers = self.attempts.get(name)
        if not numbers:
            return 0, False
        newest = max(numbers)
        return newest, numbers[newest].may_run

    def rescan(self) -> None:
        try:
            self.scan()
        except SupervisorDiedError:
            self.bury_supervisor()

    def write_spec(self, name: str) -> None:
        rng, version = self.rng, next(self.versions)
        training = self.training.setdefault(
            name,
            Training(0, rng.choice([None, None, 0, 12]), has_session=rng.random() < 0.8),
        )
        training.steps_total += rng.choice([5, 20])
        self.specs[name] = ResolvedJob(
            name=name,
            command=("train",),
            workdir="/",
            spec_path=f"/jobs/{name}.yaml",
            spec_digest=f"v{version}",
            resources=Resources(cpus=rng.choice([0.5, 1.0, 2.0, 3.0]), gpus=rng.choice([0, 0, 1])),
            restart=RestartPolicy(budget=rng.choice([1, 2, 5]), initial_s=1.0, max_s=30.0),
            grace_s=10.0,
            priority=rng.choice([0, 0, 1]),
            stall_timeout_s=rng.choice([20.0, 20.0, "auto"]),
            on_nonfinite_loss=rng.choice(["ignore", "stop", "rollback", "rollback"]),
        )
        if rng.random() < 0.2:
            training.spoilt_step = rng.choice([5, 10, 15])
        self.note(f"{name}: spec v{version} written")
        self.rescan()

    def forgive(self, name: str) -> None:
        """Whoever changes or resumes a job may have it launched at once, with a full budget."""
        self.not_before[name] = 0.0
        self.failures[name] = 0
        self.same.pop(name, None)

    def remove_spec(self, name: str) -> None:
        self.note(f"{name}: spec removed")
        self.specs.pop(name, None)
        self.rescan()

    def break_spec(self, name: str) -> None:
        if not isinstance(self.specs.get(name), ResolvedJob):
            return
        self.note(f"{name}: spec broken")
        whole = self.specs[name]
        self.specs[name] = f"broken {next(self.versions)}"
        self.rescan()
        self.later(self.rng.choice([1.0, 30.0]), lambda: self.mend_spec(name, whole))

    def rename_spec(self, name: str) -> None:
        """Another file that says the same, as after a rename or a change of its layout."""
        spec = self.specs.get(name)
        if isinstance(spec, ResolvedJob):
            self.note(f"{name}: spec renamed")
            self.specs[name] = replace(spec, spec_path=f"/jobs/{name}-{next(self.versions)}.yaml")
            self.rescan()

    def mend_spec(self, name: str, whole: ResolvedJob) -> None:
        if isinstance(self.specs.get(name), str):
            self.specs[name] = replace(whole, spec_digest=f"v{next(self.versions)}")
            self.rescan()

    def stop(self, name: str) -> None:
        if self.ledger is not None and name in self.ledger.jobs and not self.has_full_disk:
            self.stopped_by_user.add(name)
            self.post(name, happened.StopAsked())

    def resume(self, name: str) -> None:
        if self.ledger is not None and name in self.ledger.jobs:
            self.post(name, happened.ResumeAsked())

    def hold(self, name: str) -> None:
        if self.ledger is not None and name in self.ledger.jobs:
            self.post(name, happened.HoldAsked())

    def retry(self, name: str) -> None:
        if self.ledger is not None and name in self.ledger.jobs:
            self.post(name, happened.RetryAsked())

    def preempt(self, name: str) -> None:
        self.post(name, happened.PreemptionAsked("somebody"))

    def shut_down(self) -> None:
        if self.ledger is None or self.has_full_disk:
            return
        self.note("supervisor is asked to stop")
        self.is_shutting_down = True
        self.ledger.grants_slots = False
        for name in tuple(self.ledger.jobs):
            self.post(name, happened.ShutdownAsked())
        life = self.life
        self.later(15.0, lambda: self.leave(life))

    def leave(self, life: int) -> None:
        if life == self.life and self.ledger is not None:
            self.bury_supervisor()

    def set_disk(self, *, is_full: bool) -> None:
        self.note(f"the disk {'is full' if is_full else 'has room'}")
        self.has_full_disk = is_full
        self.able_since_s = self.now

    # --- what must always hold ---

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
        if isinstance(event, happened.ResumeAsked):
            self.stopped_by_user.discard(name)
        if isinstance(event, happened.ResumeAsked) and not step.is_ignored:
            self.held_by_user.discard(name)
        if isinstance(event, happened.HoldAsked):
            self.held_by_user.add(name)
        is_new_try = isinstance(event, happened.ResumeAsked | happened.RetryAsked) and not step.is_ignored
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
            is_affordable = self.failures.get(name, 0) < after.spec.restart.budget
            self.require(is_affordable, f"{name}: launched with its budget spent")
            is_due = self.now >= self.not_before.get(name, 0.0) - 1e-6
            self.require(is_due, f"{name}: launched before its wait was over")
            self.require(
                isinstance(self.specs.get(name), ResolvedJob) or self.is_late(), f"{name}: no good spec"
            )

    def may_be_parked(self, name: str, event, after) -> bool:
        """Whether its budget is spent, its spec says so, or the same failure came again from an older checkpoint."""
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
        """Whether the folder may have changed since the ledger last saw it: a scan is not finished yet."""
        return bool(self.inbox) or self.delayed > 0 or self.is_folder_news

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

    def check_request(self, step) -> None:
        """Whoever drains was asked to, by this supervisor or by the one before; his grace period runs from then."""
        if step.after is None or not isinstance(step.after.state, Draining):
            return
        is_new = step.before is None or not isinstance(step.before.state, Draining)
        if not is_new and not isinstance(step.event, happened.AttemptSeen):
            return
        self.require_asked(step.name, step.after.attempt)

    def require_asked(self, name: str, number: int) -> None:
        attempt = self.attempts.get(name, {}).get(number)
        is_asked = attempt is None or attempt.is_over or attempt.is_void or attempt.signals > 0
        self.require(is_asked, f"{name}: drains, and attempt {number} was not asked to")

    def check_drain(self, name: str) -> None:
        """A drain ends within the grace period, counted from when a supervisor was able to ask for it."""
        job = self.ledger.jobs.get(name) if self.ledger is not None else None
        if job is None or not isinstance(job.state, Draining) or self.has_full_disk:
            return
        attempt = self.attempts[name].get(job.attempt)
        lasts_s = self.now - max(job.since_wall_s, self.able_since_s)
        is_late = lasts_s > job.spec.grace_s + DRAIN_SLACK_S
        self.require(not is_late, f"{name}: drains for {lasts_s:.0f} s: {attempt}")

    def check_capacity(self) -> None:
        live = [job for job in self.ledger.jobs.values() if job.is_live]
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
            self.require(is_at_rest or is_held, f"{name}: still {job.state}: {job.reason}")
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


def replace_void(name: str, number: int) -> SimulatedAttempt:
    fate = Fate(0.0, 0, "crash", 0.0, drains_well=True)
    return SimulatedAttempt(name, number, "", fate, Training(0, None, has_session=True), 0.0, 0, is_void=True)
