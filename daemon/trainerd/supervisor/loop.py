"""The supervisor's loop: events in, decisions recorded, commands carried out.

Invariants: one consumer decides about all events, in order; a command is carried out only after its decision
is durable; nothing here decides. Everything runs on one event loop; what blocks for long runs in a thread.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from trainerd.errors import InternalError, SpaceError, TrainerdError
from trainerd.supervisor.attempt.launcher import ShimLauncher
from trainerd.supervisor.attempt.monitor import Look, Monitor
from trainerd.supervisor.attempt.reaper import OrphanReaper
from trainerd.supervisor.attempt.run_files import DiskRunFiles, MonitoredAttempt, RunFiles
from trainerd.supervisor.bounded_io import BoundedIo, NotObservedError
from trainerd.supervisor.containment import fault_of
from trainerd.supervisor.inbox import Inbox
from trainerd.supervisor.log.job_lines import job_lines
from trainerd.supervisor.log.say import log_event
from trainerd.supervisor.machine.commands import (
    DrainAttempt,
    EndStalledAttempt,
    LaunchAttempt,
    ObserveAttempt,
    WakeLater,
)
from trainerd.supervisor.machine.job_events import (
    FaultSeen,
    ScriptChanged,
    ShutdownAsked,
    SpaceBack,
    WaitEnded,
)
from trainerd.supervisor.machine.states import BackingOff, Faulted, Paused, Rejected, Running
from trainerd.supervisor.operator_hold import is_on_hold, lift_hold, put_on_hold
from trainerd.supervisor.reconcile import accepted_news, spec_events
from trainerd.supervisor.standby_keeper import StandbyKeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from trainerd.contract.clock import Clock
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.attempt.launcher import Launcher
    from trainerd.supervisor.attempt.run_news import RankFinding
    from trainerd.supervisor.inbox import Message
    from trainerd.supervisor.ledger import Ledger, Step
    from trainerd.supervisor.machine.commands import Command
    from trainerd.supervisor.machine.states import Job
    from trainerd.supervisor.specs.view import FolderView

TICK_S: Final = 1.0
"""How often heartbeats are read, and those who wait for room or for a corrected script are looked after."""

LAUNCHES_MAX: Final = 2
"""So many attempts are launched at once. More of them would wait for the same disk, and the loop for a
processor."""

RECORD_RETRY_S: Final = 1.0
"""Between two tries to record decisions on a full disk."""

CALM_S: Final = 10.0
"""How long the journal must be writable before that is logged, in seconds."""

SCAN_LIMIT_S: Final = 60.0
"""How long one look at the jobs folder may take before it counts as not made."""

SCAN_RETRY_S: Final = 2.0
"""Between two looks at a jobs folder that cannot be read."""

_log = structlog.get_logger(__name__)


class Folder(Protocol):
    """Where the specs are."""

    def scan(self) -> FolderView:
        """Return what it says now. Called in a thread, one call at a time.

        Raises:
            UserError: It cannot be trusted.
            OSError: It cannot be read: unknown, not empty.
        """
        ...


class Loop:
    """Supervises the jobs of a ledger.

    Args:
        paths: The state folder.
        ledger: The jobs.
        folder: The specs.
        launcher: Does things to processes.
        clock: Tells the time of waits that a supervisor before this one began.
        files: The run folders.
        io: Makes the calls that block.
        inbox: Takes the events.
        observers: Called with every step that changed something, in this order, before its commands are
            carried out.
        note_finding: Called with what a rank of a job's attempt has found.
        own_pids: Returns the children of this process that are collected elsewhere.
    """

    def __init__(
        self,
        paths: StatePaths,
        ledger: Ledger,
        folder: Folder,
        launcher: Launcher,
        clock: Clock,
        *,
        files: RunFiles | None = None,
        io: BoundedIo | None = None,
        inbox: Inbox | None = None,
        observers: Sequence[Callable[[Step], None]] = (),
        note_finding: Callable[[Job, int, RankFinding], None] | None = None,
        own_pids: Callable[[], frozenset[int]] = frozenset,
    ) -> None:
        self.ledger = ledger
        self.inbox = inbox if inbox is not None else Inbox()
        self.monitors: dict[str, Monitor] = {}
        self.is_stopping = False
        self.journal_problem = ""
        self.is_on_hold = is_on_hold(paths.hold)
        self._paths = paths
        self._folder = folder
        self._launcher = launcher
        self._files = files if files is not None else DiskRunFiles()
        self._io = io if io is not None else BoundedIo()
        self._clock = clock
        self._observers = tuple(observers)
        self._note_finding = note_finding
        self._own_pids = own_pids
        self.kept_back = self.preemption = ""
        # A fault of the loop itself ends the supervisor, and no job notices; one in handling a job does not.
        self._tasks = asyncio.TaskGroup()
        self._launches = asyncio.Semaphore(LAUNCHES_MAX)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._scan_is_due = asyncio.Event()
        self._scan_again: asyncio.TimerHandle | None = None
        self._calm: asyncio.TimerHandle | None = None
        self.standbys = (
            StandbyKeeper(launcher, self._io, clock, memory_bytes=ledger.memory_bytes)
            if isinstance(launcher, ShimLauncher)
            else None
        )
        self._is_idle = asyncio.Event()
        self._is_scanning = asyncio.Lock()
        self._has_scanned = False
        self._reaper = OrphanReaper() if os.getpid() == 1 else None

    async def run(self) -> None:
        """Recover, then supervise until cancelled. Cancelling leaves every attempt undisturbed."""
        try:
            async with self._tasks:
                self.recover()
                self._tasks.create_task(self._decide())
                self._tasks.create_task(self._scan_folder())
                self._tasks.create_task(self._tick())
        finally:
            if self.standbys is not None:
                self.standbys.end()
            await self._io.finish()

    def recover(self) -> None:
        """Tell from each state what is missing: a monitor for what may live, a timer for what waits."""
        for name, what in self.ledger.page.suspects().items():
            if name in self.ledger.jobs:
                error = InternalError(f"two supervisors in a row ended in: {what}")
                self._apply_fault(name, fault_of(error, "handling it"))
        for name, job in list(self.ledger.jobs.items()):
            try:
                with self.ledger.page.handling(name, "recovery"):
                    self._recover(name, job)
            except Exception as error:  # noqa: BLE001 - a fault in handling one job is its own
                self._set_aside(name, error, "taking it over")

    def _apply_fault(self, name: str, fault: FaultSeen) -> None:
        _log.error("job.set-aside", job=name, reason=fault.error)
        try:
            self.ledger.apply([(name, fault)])
        except TrainerdError:
            self.inbox.post(name, fault)

    def _recover(self, name: str, job: Job) -> None:
        if job.is_live:
            _log.info("job.adopting", job=name, attempt=job.attempt, state=job.state.NAME)
            self._keep(job).adopt()
            if self.is_on_hold:
                # The supervisor before this one may have died before it had asked them all.
                self.inbox.post(name, ShutdownAsked(is_leaving=False))
        elif isinstance(job.state, BackingOff | Paused):
            left_s = min(max(job.state.until_wall_s - self._clock.wall_s(), 0.0), job.state.delay_s)
            self._wake(name, job.attempt, left_s)

    @property
    def has_scanned(self) -> bool:
        """Whether what the jobs folder said at the start is known and recorded."""
        return self._has_scanned

    def hold_all(self) -> None:
        """Ask every live attempt to stop and start no other until `release_all`, restarts included.

        Raises:
            SpaceError: It could not be made durable; nothing has changed.
        """
        put_on_hold(self._paths.hold, now_wall_s=self._clock.wall_s())
        self.is_on_hold = True
        self.ledger.grants_slots = False
        for name, job in self.ledger.jobs.items():
            if job.may_have_processes:
                self.inbox.post(name, ShutdownAsked(is_leaving=False))
        _log.info("supervisor.on-hold")

    def release_all(self) -> None:
        """Start jobs again, as far as each is not held itself."""
        lift_hold(self._paths.hold)
        self.is_on_hold = False
        self._grant_again()
        _log.info("supervisor.released")

    def _grant_again(self) -> None:
        """Start queued jobs again unless something speaks against it."""
        is_kept_back = self.is_stopping or self.is_on_hold or bool(self.kept_back)
        self.ledger.grants_slots = self._has_scanned and not is_kept_back
        self.inbox.nudge()

    def keep_back(self, why: str, *, is_draining: bool) -> None:
        """Start no job until `let_go`: the machine is about to be taken.

        Args:
            why: Shown as the reason why jobs wait.
            is_draining: Whether running jobs leave.
        """
        self.kept_back = why
        self.preemption = f"{'draining' if is_draining else 'starting nothing'}: {why}"
        self.ledger.grants_slots = False

    def let_go(self) -> None:
        """Start jobs again: the machine is not taken after all."""
        self.kept_back = self.preemption = ""
        self._grant_again()

    def drain_for(self, names: Sequence[str], why: str) -> None:
        """Ask these jobs to checkpoint and leave; they go on when jobs are started again."""
        for name in names:
            job = self.ledger.jobs.get(name)
            if job is not None and job.may_have_processes:
                self.inbox.post(name, ShutdownAsked(is_leaving=False, why=why))

    async def drain_all(self) -> None:
        """Ask every live attempt to stop, start no other, and return when none is left."""
        self.is_stopping = True
        self.ledger.grants_slots = False
        for name, job in self.ledger.jobs.items():
            if job.may_have_processes:
                self.inbox.post(name, ShutdownAsked())
        self.inbox.nudge()
        self._is_idle.clear()
        await self._is_idle.wait()

    def rescan(self) -> None:
        """See to it that the jobs folder is looked at soon."""
        self._scan_is_due.set()

    async def scan(self) -> None:
        """Look at the jobs folder, and return when what it says is durable.

        Raises:
            UserError: The folder cannot be trusted.
            OSError: It cannot be read: unknown, not empty.
            SpaceError: What it says could not be recorded.
            TryAgainError: It hangs, or the run folder of a new spec does: what else it says is recorded.
        """
        # One at a time, to the end: events of two views must not be mixed.
        async with self._is_scanning:
            view = await self._io.observe("the jobs folder", self._folder.scan, limit_s=SCAN_LIMIT_S)
            if self._scan_again is not None:
                self._scan_again.cancel()
            if view.look_again_s is not None:
                self._scan_again = asyncio.get_running_loop().call_later(view.look_again_s, self.rescan)
            attempts = await self._newest_attempts(view)
            jobs = self.ledger.jobs
            unknown = accepted_news(jobs, view) - attempts.keys()
            events = spec_events(jobs, view, newest_attempts=attempts)
            await asyncio.gather(*[self.inbox.ask(name, event) for name, event in events])
        if not self._has_scanned:
            self._has_scanned = True
            # Not before: a job whose spec was removed in the meantime must not be started once more.
            self._grant_again()
        if unknown:
            raise NotObservedError(
                f"the run folders of these jobs do not answer: {', '.join(sorted(unknown))}",
                hint="their specs are taken in as soon as they do",
            )

    async def _newest_attempts(self, view: FolderView) -> dict[str, tuple[int, bool]]:
        """Return what the run folders hold of jobs whose specs are news, as far as it can be observed."""
        asked: set[str] = set()
        found: dict[str, tuple[int, bool]] = {}
        # A decision that was taken meanwhile may have made more of them news.
        while names := accepted_news(self.ledger.jobs, view) - asked:
            asked |= names
            runs = {self._paths.run(name): name for name in names}
            seen = await self._io.sweep({run.root: partial(self._files.newest_attempt, run) for run in runs})
            found |= {runs[run]: seen[run.root] for run in runs if run.root in seen}
        return found

    async def _scan_folder(self) -> None:
        while True:
            try:
                await self.scan()
            except SpaceError as error:  # it was read, and what it says could not be recorded
                self._note_journal(error)
                asyncio.get_running_loop().call_later(SCAN_RETRY_S, self.rescan)
            except Exception as error:  # noqa: BLE001 - whatever is in the folder, the jobs that are known go on
                is_bug = not isinstance(error, TrainerdError | OSError)
                _log.error("jobs-folder.unreadable", reason=str(error) or repr(error), exc_info=is_bug)
                asyncio.get_running_loop().call_later(SCAN_RETRY_S, self.rescan)
            await self._scan_is_due.wait()
            self._scan_is_due.clear()

    async def _decide(self) -> None:
        while True:
            # With more messages there the next line would not let other tasks have a turn.
            await asyncio.sleep(0)
            messages = await self.inbox.take()
            try:
                steps = self.ledger.apply((message.name, message.event) for message in messages)
            except InternalError:
                raise
            except TrainerdError as error:
                await self._keep_for_later(messages, error)
                continue
            self._note_journal(None)
            for message, step in zip(messages, steps, strict=False):
                if message.answer is not None and not message.answer.done():
                    message.answer.set_result(step)
            for step in steps:
                self._follow_contained(step)
            if not any(job.is_live for job in self.ledger.jobs.values()):
                self._is_idle.set()

    def _note_journal(self, error: TrainerdError | None) -> None:
        """Keep why nothing can be decided, and say it; what lasts is logged at a bounded rate.

        That it can be written again is logged when it has been so for a while: on a full disk a small
        record may fit between two that do not.
        """
        if error is not None:
            self.journal_problem = str(error)
            if self._calm is not None:
                self._calm.cancel()
                self._calm = None
            if isinstance(error, SpaceError):
                _log.error("journal.full", reason=str(error))
            else:
                _log.error("journal.unusable", reason=str(error))
        elif self.journal_problem:
            self.journal_problem = ""
            self._calm = asyncio.get_running_loop().call_later(CALM_S, self._say_written_again)

    def _say_written_again(self) -> None:
        self._calm = None
        _log.info("journal.written-again")

    async def _keep_for_later(self, messages: tuple[Message, ...], error: TrainerdError) -> None:
        """Facts stay facts until they can be recorded; a request is refused, and may be made again."""
        self._note_journal(error)
        for message in messages:
            if message.answer is not None and not message.answer.done():
                message.answer.set_exception(error)
        self.inbox.put_back([message for message in messages if message.answer is None])
        await asyncio.sleep(RECORD_RETRY_S)
        # Even if no message is left, those who were about to start must be asked about again.
        self.inbox.nudge()

    def _follow_contained(self, step: Step) -> None:
        what = f"carrying out the answer to {type(step.event).__name__}"
        try:
            with self.ledger.page.handling(step.name, what):
                self._follow(step)
        except Exception as error:  # noqa: BLE001 - a fault in handling one job is its own
            self._set_aside(step.name, error, what)

    def _set_aside(self, name: str, error: Exception, doing: str) -> None:
        """Note a fault in handling one job: the job is set aside, and everything else goes on."""
        fault = fault_of(error, doing)
        job = self.ledger.jobs.get(name)
        _log.error(
            "job.handling-failed",
            job=name,
            attempt=job.attempt if job is not None else 0,
            reason=fault.error,
            traceback="\n".join(fault.detail),
        )
        # What fails again when the fault is told would go on so for ever.
        if job is None or not isinstance(job.state, Faulted):
            self.inbox.post(name, fault)

    async def _contained(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do something for one job; a fault in it sets the job aside."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - as above
            self._set_aside(name, error, "watching its attempt")

    def _follow(self, step: Step) -> None:
        """Say what was decided, and do what follows."""
        self._say(step)
        if step.is_ignored:
            return
        for observe in self._observers:
            observe(step)
        if self.standbys is not None:
            self.standbys.follow(step.after)
        was_live = step.before is not None and step.before.is_live
        if was_live and (step.after is None or not step.after.is_live):
            self.monitors.pop(step.name, None)
        if step.before is not None and step.after is not None and step.before.state is not step.after.state:
            timer = self._timers.pop(step.name, None)
            if timer is not None:
                timer.cancel()
        for command in step.commands:
            self._carry_out(step.name, command)

    def _carry_out(self, name: str, command: Command) -> None:
        job = self.ledger.jobs.get(name)
        if job is None:
            return
        match command:
            case LaunchAttempt():
                self._keep(job).launch()
            case ObserveAttempt():
                self._keep(job).adopt()
            case DrainAttempt():
                self.monitors[name].drain()
            case EndStalledAttempt():
                self.monitors[name].end_stalled()
            case WakeLater(attempt, delay_s):
                self._wake(name, attempt, delay_s)

    def _keep(self, job: Job) -> Monitor:
        assert job.spec is not None, "a job that was launched has a spec"
        attempt = MonitoredAttempt(
            job.spec,
            self._paths.run(job.name),
            job.attempt,
            job.attempt_digest,
            getattr(job.state, "gpus", ()),
            goes_back_to=job.goes_back_to,
            stalls=job.stalls,
        )
        self.monitors[job.name] = Monitor(
            attempt,
            launcher=self._launcher,
            say=lambda event: self.inbox.post(job.name, event),
            begin=lambda work: self._tasks.create_task(self._contained(job.name, work)),
            turns=self._launches,
            files=self._files,
            io=self._io,
            clock=self._clock,
        )
        return self.monitors[job.name]

    def _wake(self, name: str, attempt: int, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[name] = loop.call_later(delay_s, self.inbox.post, name, WaitEnded(attempt))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self._look_after_all()
            if self.standbys is not None:
                await self._look_after_standbys(self.standbys)
            if self._reaper is not None:
                launched = getattr(self._launcher, "child_pids", ())
                self._reaper.look(own={*launched, *self._own_pids()})

    async def _look_after_standbys(self, standbys: StandbyKeeper) -> None:
        """A fault in it costs the standbys, and no job."""
        try:
            is_stopping = self.is_stopping or self.is_on_hold
            await standbys.look(self.ledger.jobs, self.monitors, is_stopping=is_stopping)
        except (TrainerdError, OSError, ValueError) as error:
            _log.warning("standby.not-kept", reason=str(error))

    async def _look_after_all(self) -> None:
        """Look at live attempts, and at what others wait for; what cannot be observed is left as it is."""
        looks: dict[Path, Callable[[], Look | bool | Exception]] = {}
        asked: list[tuple[str, Path, Monitor | None]] = []
        for name, job in self.ledger.jobs.items():
            monitor = self.monitors.get(name)
            # Most jobs of a large folder rest or wait for a slot, and this is asked of each one every second.
            if monitor is None and not isinstance(job.state, _LOOKED_AT_WITHOUT_MONITOR):
                continue
            look = self._look_at(job, monitor)
            if look is not None:
                root = monitor.attempt.run.root if monitor is not None else self._paths.run(name).root
                looks[root] = _contained_look(look)
                asked.append((name, root, monitor))
        if not looks:
            return
        seen = await self._io.sweep(looks)
        for name, root, monitor in asked:
            found, now = seen.get(root), self.ledger.jobs.get(name)
            if now is None or self.monitors.get(name) is not monitor:
                continue  # decided meanwhile: it is news of something that is over
            if isinstance(found, Exception):
                self._set_aside(name, found, "looking at its attempt")
            elif isinstance(found, Look) and monitor is not None:
                try:
                    monitor.take_in(_for_state(found, now), best_step=now.best_step)
                    self._pass_on(now, monitor.attempt.number, found)
                except Exception as error:  # noqa: BLE001 - a fault in handling one job is its own
                    self._set_aside(name, error, "judging what its attempt shows")
            elif found is True and _waits_for_room(now):
                self.inbox.post(name, SpaceBack())
            elif found is True and _waits_for_script(now):
                self.inbox.post(name, ScriptChanged())

    def _pass_on(self, job: Job, attempt: int, look: Look) -> None:
        if self._note_finding is None:
            return
        for finding in look.news:
            self._note_finding(job, attempt, finding)

    def _look_at(self, job: Job, monitor: Monitor | None) -> Callable[[], Look | bool] | None:
        """Return what is to be called in a thread, None if there is nothing to look at."""
        if monitor is not None:
            return partial(monitor.look, for_stall=_may_stall(job))
        if _waits_for_room(job):
            return partial(self._files.has_room, self._paths.run(job.name))
        if _waits_for_script(job):
            return partial(self._is_mended, job)
        return None

    def _is_mended(self, job: Job) -> bool:
        """Return whether a file that the command of a rejected job names has changed since. Blocks."""
        assert isinstance(job.state, Rejected)
        assert job.spec is not None
        return self._files.script_marks(job.spec) != job.state.script

    def _say(self, step: Step) -> None:
        monitor = self.monitors.get(step.name)
        beat = monitor.heartbeat if monitor is not None else None
        for name, fields in job_lines(step, heartbeat_step=beat.step if beat else None):
            log_event(name, **fields)


def _contained_look(look: Callable[[], Look | bool]) -> Callable[[], Look | bool | Exception]:
    """Return a look that returns what it would raise, unless that says that nothing was seen."""

    def contained() -> Look | bool | Exception:
        try:
            return look()
        except InternalError as error:
            return error
        except (TrainerdError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - nothing catches it further up: the job is set aside
            return error

    return contained


def _may_stall(job: Job) -> bool:
    return isinstance(job.state, Running) and not job.state.is_stalled


_LOOKED_AT_WITHOUT_MONITOR: Final = (Paused, Rejected)
"""States in which a job may wait for something that only a look can show."""


def _waits_for_room(job: Job) -> bool:
    return isinstance(job.state, Paused) and job.state.has_waited


def _waits_for_script(job: Job) -> bool:
    return isinstance(job.state, Rejected) and bool(job.state.script) and job.spec is not None


def _for_state(look: Look, job: Job) -> Look:
    """Return a look without what counts for an attempt that runs alone, if the job is no longer running."""
    return look if _may_stall(job) else replace(look, sight=None)
