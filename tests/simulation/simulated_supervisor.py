"""One life of the supervisor: the real loop and monitors, on a launcher, run folders and a jobs folder that
are simulated.

A life may end in the middle of anything. From then on whatever it touches raises, so that nothing of it goes
on.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from types import SimpleNamespace

from simulated_physics import SimulatedAttempt

from trainerd.contract.paths import StatePaths
from trainerd.contract.process import ProcessIdentity
from trainerd.contract.records import StallRecord
from trainerd.errors import SpaceError, TryAgainError
from trainerd.supervisor.attempt.gpu_release import Holding
from trainerd.supervisor.attempt.probe import (
    ProbedEnded,
    ProbedLost,
    ProbedNotStarted,
    ProbedRunning,
    ProbedStarting,
    ProbedUnknown,
)
from trainerd.supervisor.bounded_io import BoundedIo
from trainerd.supervisor.inbox import Inbox
from trainerd.supervisor.ledger import Ledger
from trainerd.supervisor.loop import Loop
from trainerd.supervisor.specs.view import Accepted, FolderView, Refused

PATHS = StatePaths(Path("/simulated"))
SHIM = ProcessIdentity(4242, 1, "simulated")
PROBE_S = 10.0
"""How long a change that the watch has missed stays unseen."""
STARTING_LOOK_S = 0.5
UNKNOWN_LOOK_S = 1.0


class SupervisorDiedError(BaseException):
    """The simulated SIGKILL: unwinds to where nothing of the supervisor is left. Nothing catches it."""


class Life:
    """One supervisor, from its start to its death.

    Args:
        world: What it supervises.
        number: From 1.
    """

    def __init__(self, world, number: int, capacity) -> None:
        self.world = world
        self.number = number
        self.is_dead = False
        ledger = CheckedLedger(world, JournalOfLife(self), capacity)
        self.loop = Loop(
            PATHS,
            ledger,
            SimulatedFolder(self),
            SimulatedLauncher(self),
            world,
            files=SimulatedFiles(self),
            io=BoundedIo(),
            inbox=RepeatingInbox(world),
            observers=[self.observe],
        )
        self.tasks = [world.loop.create_task(self.loop.run())]
        self.tasks[0].add_done_callback(self._ended)

    def begin(self, work) -> asyncio.Task:
        task = self.world.loop.create_task(work)
        self.tasks.append(task)
        return task

    def end(self) -> None:
        """Die. What still runs is cancelled, and can touch nothing any more."""
        self.is_dead = True
        for task in self.tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task) -> None:
        error = None if task.cancelled() else task.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is not None and not isinstance(error, SupervisorDiedError):
            self.world.fail(error)

    def touch(self, chance_of_death: float = 0.0) -> None:
        """Raise if this life is over; let it be over with some probability."""
        if self.is_dead:
            raise SupervisorDiedError
        if self.world.chance(chance_of_death):
            self.die()

    def die(self) -> None:
        self.world.bury(self)
        raise SupervisorDiedError

    def observe(self, step) -> None:
        """Die perhaps after a decision, before what follows from it is done."""
        self.touch()
        for _ in step.commands:
            self.touch(0.02)
            if self.world.counts_to_death():
                self.die()


class CheckedLedger(Ledger):
    """The real ledger. All that it has recorded is checked, before the supervisor may die of acting upon
    it."""

    def __init__(self, world, journal, capacity) -> None:
        super().__init__(journal, capacity, world)
        self._world = world

    def apply(self, events):
        steps = super().apply(events)
        for step in steps:
            if not step.is_ignored:
                self._world.note_step(step)
        self._world.check_capacity(self.jobs)
        return steps


class JournalOfLife:
    """The real journal, on a disk that may be full, for a supervisor that may be dead."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._journal = life.world.journal
        self.jobs = self._journal.jobs

    def commit(self, entries, *, wall_s):
        self._life.touch(0.005)
        if self._life.world.has_full_disk:
            raise SpaceError("simulated: no space left")
        self._journal.commit(entries, wall_s=wall_s)


class RepeatingInbox(Inbox):
    """Facts may come twice."""

    def __init__(self, world) -> None:
        super().__init__()
        self._world = world

    def post(self, name, event) -> None:
        super().post(name, event)
        if self._world.chance(0.05):
            super().post(name, event)

    @property
    def is_empty(self) -> bool:
        return not self._messages


class SimulatedFolder:
    """The jobs folder."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def scan(self) -> FolderView:
        self._life.touch(0.01)
        if self._life.world.chance(0.03):
            raise OSError("simulated: the jobs folder cannot be read")
        return FolderView(
            {
                name: Refused(name, f"/jobs/{name}.yaml", spec) if isinstance(spec, str) else Accepted(spec)
                for name, spec in self._life.world.specs.items()
            }
        )


class SimulatedFiles:
    """The run folders: implements `RunFiles`."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._world = life.world

    def newest_attempt(self, run) -> tuple[int, bool]:
        self._life.touch()
        numbers = self._world.attempts.get(run.root.name)
        if not numbers:
            return 0, False
        newest = max(numbers)
        return newest, not (numbers[newest].is_over or numbers[newest].is_void)

    def has_room(self, _run) -> bool:
        self._life.touch()
        return not self._world.has_full_disk

    def script_marks(self, _job) -> tuple:
        return ()

    def findings(self, _run, _attempt, told):
        return [], told

    def heartbeat(self, run, number: int, _rank: int):
        self._life.touch()
        attempt = self._world.attempts.get(run.root.name, {}).get(number)
        if attempt is None or self._world.chance(0.02):
            return None
        return attempt.heartbeat(self._world.now, clock=self._world.monotonic_at)

    def log_bytes(self, run, _rank: int) -> int:
        return sum(
            attempt.log_bytes(self._world.now)[0] for attempt in self._world.attempts[run.root.name].values()
        )

    def expected(self, attempt, _environ):
        return attempt

    def prepare(self, attempt, _environ):
        self._life.touch()
        world, name = self._world, attempt.run.root.name
        if world.has_full_disk:
            raise SpaceError("simulated")
        if world.chance(0.03):
            raise OSError("simulated")
        if attempt.goes_back_to is not None:
            world.training[name].go_back(attempt.goes_back_to)
            self._life.touch(0.05)
        return attempt

    def fence(self, run):
        raise AssertionError(f"{run.root}: no attempt of the simulation is on another machine")

    def record_stall(self, attempt, _ranks, describe, *, wall_s: float) -> None:
        self._life.touch(0.05)
        found = self._world.attempts[attempt.run.root.name][attempt.number]
        if found.stall is None:
            stall = describe()
            found.stall = StallRecord(stall.silence_s, stall.limit_s, stall.doing.name.lower(), wall_s)
        self._life.touch(0.05)

    def evidence(self, attempt, ending, *, lost_because, is_after_reboot, looks_at_checkpoints):
        self._life.touch(0.01)
        if looks_at_checkpoints and self._world.chance(0.02):
            raise OSError("simulated: the checkpoints cannot be looked at")
        found = self._world.attempts[attempt.run.root.name][attempt.number].evidence
        assert (found.exit, bool(found.lost_because)) == (ending, bool(lost_because))
        return found


class SimulatedLauncher:
    """Attempts that the world makes: implements `Launcher`."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._world = life.world

    def _attempt(self, paths) -> SimulatedAttempt | None:
        return self._world.attempts.get(paths.root.parents[1].name, {}).get(int(paths.root.name))

    def launch(self, paths, record) -> None:
        self._life.touch(0.02)
        self._world.launch(self._life.number, paths.root.parents[1].name, record)
        self._life.touch(0.02)

    def signal(self, paths, signum: int) -> bool:
        self._life.touch(0.01)
        attempt = self._attempt(paths)
        if attempt is None or attempt.is_over or attempt.is_void:
            return False
        if not attempt.is_up and attempt.life != self._life.number:
            raise TryAgainError("simulated: its shim has not said yet who it is")
        if self._world.chance(0.02):
            raise OSError("simulated: the shim could not be signalled")
        if signum == signal.SIGTERM:
            self._world.signal(attempt)
        else:
            self._world.end_stalled(attempt)
        self._life.touch(0.01)
        return True

    def void(self, paths, _reason: str) -> bool:
        self._life.touch()
        attempt = self._attempt(paths)
        if attempt is None:
            self._world.seal(paths.root.parents[1].name, int(paths.root.name))
            return True
        if not attempt.is_up and not attempt.is_over:
            attempt.is_void = True
        return attempt.is_void

    async def watch(self, paths):
        shown = None
        while True:
            state = self._state(paths)
            if isinstance(state, ProbedEnded | ProbedLost | ProbedNotStarted):
                yield state
                return
            if state != shown:
                yield state
                shown = state
            await self._change(paths, state)

    def _state(self, paths):
        self._life.touch(0.005)
        attempt = self._attempt(paths)
        if self._world.chance(0.05):
            return ProbedUnknown("simulated")
        if attempt is None or (
            # Its shim may be on its way, or the supervisor may have died before it spawned one.
            not attempt.is_up
            and not attempt.is_over
            and attempt.life != self._life.number
            and self._world.rng.random() < 0.5
        ):
            self.void(paths, "no shim had started it")
            attempt = self._attempt(paths)
        if attempt.is_void:
            return ProbedNotStarted("simulated", is_void=True)
        if attempt.is_over and attempt.evidence.exit is None:
            return ProbedLost(attempt.evidence.lost_because, SHIM)
        if attempt.is_over:
            return ProbedEnded(attempt.evidence.exit)
        return ProbedRunning(SHIM, (SHIM,)) if attempt.is_up else ProbedStarting()

    async def _change(self, paths, state) -> None:
        loop = self._world.loop
        changed = loop.create_future()
        attempt = self._attempt(paths)
        if attempt is not None:
            attempt.watchers.append(changed)
        limit_s = {ProbedUnknown: UNKNOWN_LOOK_S, ProbedStarting: STARTING_LOOK_S}.get(type(state), PROBE_S)
        timer = loop.call_later(limit_s, resolve, changed)
        await changed
        timer.cancel()

    def end_survivors(self, _paths) -> int:
        self._life.touch(0.01)
        if self._world.chance(0.05):
            raise TryAgainError("simulated: processes of a lost attempt would not end")
        return 0

    def release_gpus(self, _paths, _indices) -> Holding:
        self._life.touch(0.01)
        return Holding(living=(SHIM,)) if self._world.chance(0.1) else Holding()


def resolve(future: asyncio.Future) -> None:
    if not future.done():
        future.set_result(None)


SILENT = SimpleNamespace(
    **dict.fromkeys(["debug", "info", "warning", "error", "log"], lambda *_args, **_fields: None)
)
"""In the place of the loggers: a simulated supervisor writes no log."""
