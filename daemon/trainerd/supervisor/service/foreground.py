"""One job in the foreground: the same machine, monitors and shims, without a jobs folder.

The job has a state folder of its own, so it goes on where the foreground before this one left it, whatever
ended that: an attempt whose supervisor was killed is adopted. The folder answers on its socket like any
other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from trainerd.checkpoint.run_aside import move_run_aside
from trainerd.contract import exit_codes
from trainerd.contract.clock import SystemClock
from trainerd.contract.durable import make_directory, sweep_temporary
from trainerd.contract.process import is_alive
from trainerd.contract.signals import STOP
from trainerd.errors import InternalError, LockedError, TrainerdError, UserError
from trainerd.shim.parking import PARKED_LIMIT_S
from trainerd.supervisor.api.facade import Facade
from trainerd.supervisor.api.recent_attempts import RecentAttempts
from trainerd.supervisor.attempt.cgroups import prepare_cgroups
from trainerd.supervisor.attempt.launcher import ShimLauncher
from trainerd.supervisor.attempt.node_files import NodeRunFiles
from trainerd.supervisor.attempt.run_files import DiskRunFiles
from trainerd.supervisor.bounded_io import BoundedIo, NotObservedError
from trainerd.supervisor.journal.journal import Journal
from trainerd.supervisor.ledger import Ledger
from trainerd.supervisor.log.logger import configure_logging
from trainerd.supervisor.loop import SCAN_RETRY_S, Loop
from trainerd.supervisor.machine.job_events import AttemptEnded, ResumeAsked
from trainerd.supervisor.machine.outcome import OutcomeKind
from trainerd.supervisor.machine.states import Draining, Faulted, Finished, Parked, Queued, Rejected, Stopped
from trainerd.supervisor.purge import refuse_if_live
from trainerd.supervisor.scheduler import machine_capacity
from trainerd.supervisor.service.instance_lock import is_replaced
from trainerd.supervisor.service.leave_timer import LeaveTimer
from trainerd.supervisor.service.left_behind import may_leave_processes
from trainerd.supervisor.service.node_group import OtherNodes, join_common, whole_end
from trainerd.supervisor.service.stop_requests import StopRequests
from trainerd.supervisor.service.takeover import AskedToLeaveError, exclusive_state
from trainerd.supervisor.specs.view import Accepted, FolderView

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.contract.paths import RunPaths, StatePaths
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.supervisor.api.control import OutcomeView
    from trainerd.supervisor.ledger import Step
    from trainerd.supervisor.machine.states import Job, State
    from trainerd.supervisor.service.node_group import NodeGroup, WholeEnd

DRAIN_MARGIN_S: Final = 30.0
"""How long after the grace period the shim is waited for, before leaving without it."""

HURRY_KILL_S: Final = 10.0
"""How long after being hurried the ranks may take before they are killed."""

STREAM_LOOK_S: Final = 0.1
"""How often the ranks' logs are looked at, in seconds."""

STREAM_END_LIMIT_S: Final = 5.0
"""How long a slow reader of our output is waited for at the end, in seconds."""

LEAVE_LOOK_S: Final = 0.5
"""How often it is looked whether the job has run for as long as it may, in seconds."""

LOCK_LOOK_S: Final = 1.0
"""How often it is looked whether another process has taken over the state folder, in seconds."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class End:
    """How the foreground ended.

    Attributes:
        code: Exit code: 0 finished, 85 drained, 93 rejected, 1 anything else.
        reason: One sentence.
        is_not_now: Whether nothing was begun, as another process has the job.
    """

    code: int
    reason: str
    is_not_now: bool = False


def judge_end(job: Job | None, outcome: OutcomeView | None, *, was_asked: bool, is_node: bool = False) -> End:
    """Return what to exit with.

    Args:
        job: As it is at the end; None if it could not be kept at all.
        outcome: How its newest ended attempt ended, None if none has.
        was_asked: Whether we were asked to leave.
        is_node: Whether the job has other nodes, which may have been lost meanwhile.
    """
    if job is None:
        return End(exit_codes.FAILED, "there is no such job any more")
    match job.state:
        case Finished():
            return End(exit_codes.FINISHED, job.reason)
        case Rejected():
            return End(exit_codes.NEVER_RETRY, job.reason)
        case Parked() | Faulted():
            return End(exit_codes.FAILED, job.reason)
        case Draining():
            # Not even SIGKILL has ended it. Wherever the command runs again, it waits for it or fences it.
            return End(
                exit_codes.DRAINED,
                "the attempt did not leave in time and may still run; the next `trainerd exec` finds it",
            )
    # What was asked to leave, and was stopped or killed without a checkpoint, had nothing to save yet, or
    # was not heard: it may still have imported its modules when the grace period was over.
    asked_kinds = {"stopped", "killed"} if was_asked else set()
    good_kinds = {"drained"} | asked_kinds | ({"lost"} if is_node else set())
    if outcome is None or outcome.checkpoint is not None or outcome.kind in good_kinds:
        return End(exit_codes.DRAINED, job.reason)
    what = "asked to leave" if was_asked else "stopped"
    return End(
        exit_codes.FAILED, f"{what}, and nothing is saved that another run could go on from: {job.reason}"
    )


class OneSpec:
    """A jobs folder that holds one spec and never changes."""

    def __init__(self, spec: ResolvedJob) -> None:
        self._view = FolderView({spec.name: Accepted(spec)})

    def scan(self) -> FolderView:
        """Return what it holds."""
        return self._view


def supervise_one(
    spec: ResolvedJob,
    state: StatePaths,
    *,
    stream: Callable[[RunPaths, threading.Event], None],
    say: Callable[[str], None],
    is_fresh: bool = False,
    takeover_after_s: float | None = None,
    leave_every_s: float | None = None,
    group: NodeGroup | None = None,
) -> End:
    """Supervise a job until it is at rest, or until asked to leave; then drain it.

    Args:
        spec: The job.
        state: Its state folder, used for this job alone.
        stream: Shows what the ranks print until the event is set, and then the rest; called in a thread.
        say: Takes what happens, a sentence each.
        is_fresh: Whether to move the run that is there aside and begin a new one.
        takeover_after_s: How long another process that has the job is waited for, in seconds; from one on
            another machine it is taken over after that. None neither waits nor takes over what is locked.
        leave_every_s: How long the job runs at most before it is drained, in seconds; None is no limit.
        group: The nodes of the job; None if it has one.

    Raises:
        LockedError: An attempt of the run to be moved aside may live.
        UserError: The folder cannot be used, or it is that of other jobs.
        SpaceError: The disk is full or read-only.
        CorruptError: Its journal is damaged.
    """
    try:
        make_directory(state.root)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {state.root}: {error.strerror}", hint="choose another --state"
        ) from error
    run = state.run(spec.name)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    with contextlib.ExitStack() as stack:
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
        try:
            lock = stack.enter_context(
                exclusive_state(state, run, takeover_after_s=takeover_after_s, say=say)
            )
        except (LockedError, AskedToLeaveError) as error:
            return End(exit_codes.DRAINED, str(error), is_not_now=True)
        make_directory(state.log.parent)
        make_directory(state.runs)
        sweep_temporary(state.root)
        join_common(run, group)
        if is_fresh:
            _begin_new_run(spec.name, state, say)
        with (
            configure_logging(state.log, stream=None),
            contextlib.closing(Journal(state.journal)) as journal,
        ):
            foreground = _Foreground(
                spec, state, journal, say, lock=lock, leave_every_s=leave_every_s, group=group
            )
            return asyncio.run(foreground.run(stream))


def _begin_new_run(name: str, state: StatePaths, say: Callable[[str], None]) -> None:
    """Move the run and its journal aside.

    After a crash in between, the run goes on as that of a new job.

    Raises:
        LockedError: An attempt may live.
        UserError: The run cannot be moved.
    """
    run = state.run(name)
    refuse_if_live(run)
    if state.journal.exists():
        make_directory(run.root)
        for path in state.root.glob(f"{state.journal.name}*"):
            path.rename(run.root / path.name)
    place = move_run_aside(run)
    if place is not None:
        say(f"a new run begins; the one that was there is kept in {place}")


class _ForegroundFacade(Facade):
    """Answers as the supervisor does, but for what a foreground cannot do."""

    async def reload(self) -> None:
        # SIGHUP, by which a supervisor reloads, means here that the terminal is gone.
        raise UserError(
            "a job in the foreground is not reloaded", hint="end `trainerd exec` and run it again: it goes on"
        )


class _Foreground:
    def __init__(
        self,
        spec: ResolvedJob,
        state: StatePaths,
        journal: Journal,
        say: Callable[[str], None],
        *,
        lock: int,
        leave_every_s: float | None,
        group: NodeGroup | None,
    ) -> None:
        clock = SystemClock()
        self._group = group
        self._others: OtherNodes | None = None
        files: DiskRunFiles = DiskRunFiles()
        if group is not None:
            self._others = OtherNodes(group.place, state.run(spec.name), spec.spec_digest)
            files = NodeRunFiles(group.place)
            spec = replace(spec, standby="off")  # a program held ready was not tried with other nodes
        self._whole_end: WholeEnd | None = None
        self._has_drained = False
        self._lock = lock
        self._leave_every_s = leave_every_s
        self._is_time_up = False
        self._is_taken_over = False
        self._spec = spec
        self._state = state
        self._say = say
        ledger = Ledger(journal, machine_capacity(), clock)
        others = sorted(set(ledger.jobs) - {spec.name})
        if others:
            raise UserError(
                f"the state folder {state.root} is that of other jobs: {', '.join(others[:3])}",
                hint="give this job a folder of its own with --state; the default is one",
            )
        prepare_cgroups(state)
        io = self._io = BoundedIo()
        self._launcher = ShimLauncher(clock=clock, io=io, meets_parked=group is None)
        recent = RecentAttempts(journal, state, io)
        self._loop = Loop(
            state,
            ledger,
            OneSpec(spec),
            self._launcher,
            clock,
            files=files,
            io=io,
            observers=[recent.note, self._follow],
        )
        jobs_dir = state.root  # nothing is read from it; it is only shown
        self._facade = _ForegroundFacade(
            self._loop, journal, state, jobs_dir, recent=recent, started_wall_s=clock.wall_s()
        )
        self._requests = StopRequests()
        self._is_over = asyncio.Event()

    async def run(self, stream: Callable[[RunPaths, threading.Event], None]) -> End:
        loop = asyncio.get_running_loop()
        for signum in STOP:
            loop.add_signal_handler(signum, self._note_request)
        run = self._state.run(self._spec.name)
        no_more = threading.Event()
        reader = threading.Thread(target=stream, args=(run, no_more), name="rank-logs", daemon=True)
        reader.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
        api_stop = asyncio.Event()
        _log.info("foreground.started", pid=os.getpid(), state=str(self._state.root), job=self._spec.name)
        try:
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(self._loop.run())
                await self._take_in_spec()
                await self._begin_again()
                api = tasks.create_task(self._serve_api(api_stop))
                watch = tasks.create_task(self._watch_lock())
                timer = tasks.create_task(self._watch_time())
                meeting = tasks.create_task(self._watch_meeting())
                await self._is_over.wait()
                for task in (watch, timer, meeting):
                    task.cancel()
                await self._park_standby()
                if self._is_taken_over:
                    await self._leave_to_another()
                elif self._is_asked() or self._has_drained or self._whole_end is not None:
                    await self._drain()
                api_stop.set()
                await asyncio.wait([api])
                work.cancel()
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from group
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
            no_more.set()
            await asyncio.to_thread(reader.join, STREAM_END_LIMIT_S)
        if self._is_taken_over:
            return End(
                exit_codes.FAILED,
                f"another process has taken over {self._state.root}; this one leaves the run to it",
            )
        if self._whole_end is not None and not self._is_asked():
            whole = self._whole_end
            return End(whole.code, whole.reason, is_not_now=whole.is_not_now)
        view = self._facade.get_job(self._spec.name)
        end = judge_end(
            self._job(),
            view.last_outcome if view is not None else None,
            was_asked=self._is_asked() or self._has_drained,
            is_node=self._group is not None,
        )
        self._tell_other_nodes(end)
        return end

    async def _park_standby(self) -> None:
        """Leave the process that is ready to the next `trainerd exec`, where a user is trying changes."""
        is_in_haste = self._is_taken_over or self._requests.count > 1
        if is_in_haste or not may_leave_processes(os.environ, has_terminal=os.isatty(0), pid=os.getpid()):
            return
        if await self._io.act(partial(self._launcher.standbys.park, self._spec.name)):
            limit = f"{PARKED_LIMIT_S / 60:g} min"
            self._say(f"`standby: auto`: a process stays ready for the next `trainerd exec` for {limit}")

    def _tell_other_nodes(self, end: End) -> None:
        """Say that this node is not to be waited for; else those that wait do so until their limit."""
        if self._others is None or end.code == exit_codes.FINISHED:
            return
        try:
            self._others.say_ended(end.code, end.reason)
        except (TrainerdError, OSError) as error:
            self._say(f"the other nodes cannot be told: {error}")

    def _is_asked(self) -> bool:
        return self._is_time_up or bool(self._requests.count)

    def _job(self) -> Job | None:
        return self._loop.ledger.jobs.get(self._spec.name)

    async def _take_in_spec(self) -> None:
        while True:
            try:
                return await self._loop.scan()
            except NotObservedError as error:
                _log.warning("foreground.run-not-observed", reason=str(error))
                await asyncio.sleep(SCAN_RETRY_S)

    async def _begin_again(self) -> None:
        """Let a job go on that was at rest when the foreground before this one left.

        To run it is to ask for that.
        """
        job = self._job()
        if job is not None and isinstance(job.state, Stopped | Parked | Rejected | Queued | Faulted):
            await self._loop.inbox.ask(job.name, ResumeAsked())
        if self._loop.is_on_hold:
            self._loop.release_all()
        self._keep_slot()
        self._look()

    def _follow(self, step: Step) -> None:
        before = step.before.state.NAME if step.before is not None else ""
        if step.after is not None and before != step.after.state.NAME:
            kind = step.after.state.NAME
            self._say(step.reason if step.reason.startswith(kind) else f"{kind}: {step.reason}")
        if self._group is not None and step.before is not None and step.before.is_live:
            self._follow_end(step)
        self._keep_slot()
        self._look()

    def _keep_slot(self) -> None:
        """Let no attempt follow the one that runs before it is known whether all nodes have drained."""
        job = self._job()
        if self._group is not None and job is not None and job.is_live:
            self._loop.ledger.grants_slots = False

    def _follow_end(self, step: Step) -> None:
        if isinstance(step.event, AttemptEnded) and step.event.outcome.kind is OutcomeKind.DRAINED:
            # All ranks have, as one node was asked to leave: the engine starts all nodes again.
            self._has_drained = True
            self._is_over.set()
        elif step.after is not None and not step.after.is_live:
            self._loop.let_go()

    def _look(self) -> None:
        job = self._job()
        if self._loop.has_scanned and (job is None or _is_at_rest(job.state)):
            self._is_over.set()

    def _note_request(self) -> None:
        if self._requests.note(SystemClock().monotonic_s()):
            self._is_over.set()
            if self._requests.count > 1:
                self._hurry()

    def _hurry(self) -> None:
        if self._requests.count > 2:
            self._kill_all()
            return
        for monitor in self._loop.monitors.values():
            monitor.hurry()
        asyncio.get_running_loop().call_later(HURRY_KILL_S, self._kill_all)

    def _kill_all(self) -> None:
        for monitor in self._loop.monitors.values():
            monitor.kill()

    async def _drain(self) -> None:
        limit_s = self._spec.grace_s + DRAIN_MARGIN_S
        _log.info("foreground.draining", limit_s=limit_s)
        try:
            await asyncio.wait_for(self._loop.drain_all(), limit_s)
        except TimeoutError:
            _log.error("foreground.leaves-attempt", limit_s=limit_s)

    async def _watch_time(self) -> None:
        if self._leave_every_s is None:
            return
        clock = SystemClock()
        timer = LeaveTimer(self._leave_every_s, clock.monotonic_s())
        is_due = False
        while not is_due:
            await asyncio.sleep(LEAVE_LOOK_S)
            is_due = timer.is_due(clock.monotonic_s(), self._beat(), is_running=self._is_running())
        self._say(f"it has run for {self._leave_every_s:g} s, and leaves as --leave-every asks")
        _log.info("foreground.time-up", limit_s=self._leave_every_s)
        self._is_time_up = True
        self._is_over.set()

    async def _watch_meeting(self) -> None:
        """While the ranks of this node wait for the others, look whether these still come."""
        if self._group is None or self._others is None:
            return
        waited_s = 0.0
        while self._whole_end is None:
            await asyncio.sleep(LEAVE_LOOK_S)
            if self._beat() is not None:  # a session is open, so the ranks have met
                waited_s = 0.0
                continue
            waited_s += LEAVE_LOOK_S if self._is_running() else 0.0
            with contextlib.suppress(NotObservedError):
                self._whole_end = await self._io.observe(
                    "the folder of all nodes", partial(self._look_at_others, self._others, waited_s)
                )
        self._say(self._whole_end.reason)
        self._is_over.set()

    def _look_at_others(self, others: OtherNodes, waited_s: float) -> WholeEnd | None:
        assert self._group is not None, "there are other nodes"
        return whole_end(
            is_finished=others.is_finished(),
            other=others.ended(),
            waited_s=waited_s,
            limit_s=self._group.meeting_limit_s,
        )

    def _beat(self) -> Heartbeat | None:
        monitor = self._loop.monitors.get(self._spec.name)
        return monitor.heartbeat if monitor is not None else None

    def _is_running(self) -> bool:
        job = self._job()
        return job is not None and job.may_have_processes

    async def _watch_lock(self) -> None:
        while not self._is_taken_over:
            await asyncio.sleep(LOCK_LOOK_S)
            with contextlib.suppress(NotObservedError, OSError):
                self._is_taken_over = await self._io.observe(
                    "the lock", lambda: is_replaced(self._lock, self._state.lock)
                )
        self._is_over.set()

    async def _leave_to_another(self) -> None:
        """End the attempt; the other process fences it. Nothing is recorded: the journal is not ours now."""
        monitors = list(self._loop.monitors.values())
        _log.error("foreground.taken-over", state=str(self._state.root))
        for monitor in monitors:
            monitor.hurry()
        deadline_s = time.monotonic() + self._spec.grace_s + DRAIN_MARGIN_S
        while any(each.shim is not None and is_alive(each.shim) for each in monitors):
            if time.monotonic() >= deadline_s:
                return
            await asyncio.sleep(STREAM_LOOK_S)

    async def _serve_api(self, stop: asyncio.Event) -> None:
        from trainerd.supervisor.api.app import create_app
        from trainerd.supervisor.api.server import serve

        try:
            await serve(create_app(self._facade), self._state.socket, stop=stop, runs=self._state.runs)
        except InternalError:
            raise
        except (TrainerdError, OSError) as error:
            # Such as a filesystem without sockets: the job is what counts.
            _log.warning("foreground.no-socket", reason=str(error))


def _is_at_rest(state: State) -> bool:
    return isinstance(state, Finished | Parked | Rejected | Stopped | Faulted)
