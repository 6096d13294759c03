"""Launches attempts and watches them: all that the supervisor does to processes.

Invariants: an attempt is launched at most once, and whether it was is told from disk alone. A signal is sent
through a descriptor of the recorded process, so none ever reaches a stranger. What is watched need not be a
child of this process: a supervisor adopts the shims of the one before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from trainerd.contract import records
from trainerd.contract.clock import Clock, SystemClock
from trainerd.contract.durable import make_directory, sweep_temporary, translated_space_errors
from trainerd.contract.failpoints import declare
from trainerd.contract.process import ProcessIdentity, boot_id, identify, is_alive, is_stopped, open_pidfd
from trainerd.contract.records import LaunchRecord, RanksRecord, ShimRecord, VoidRecord
from trainerd.errors import CorruptError, InternalError, LockedError, TryAgainError
from trainerd.shim.cgroup import folders_of
from trainerd.shim.cgroup_members import end_members, remove_empty
from trainerd.shim.entry import held_lock
from trainerd.shim.kernel import HELD
from trainerd.shim.standby_recipe import PREPARED_OPTION
from trainerd.shim.survivors import (
    SURVIVORS_LIMIT_S,
    attempt_mark,
    end_processes,
    find_descendants,
    shim_by_mark,
)
from trainerd.supervisor.attempt.child import ShimChild, collect_child, readable
from trainerd.supervisor.attempt.gpu_release import Holding, who_holds
from trainerd.supervisor.attempt.gpus import find_gpus
from trainerd.supervisor.attempt.probe import (
    ProbedElsewhere,
    ProbedEnded,
    ProbedLost,
    ProbedNotStarted,
    ProbedRunning,
    ProbedStarting,
    ProbedUnknown,
    ProbeResult,
    probe,
)
from trainerd.supervisor.attempt.shim_template import TEMPLATE_OPTION, ShimTemplate
from trainerd.supervisor.attempt.standbys import Standbys
from trainerd.supervisor.bounded_io import BoundedIo, NotObservedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from pathlib import Path

    from trainerd.contract.paths import AttemptPaths
    from trainerd.supervisor.attempt.gpus import Gpus

_log = structlog.get_logger(__name__)

ADOPTION_LOOK_S: Final = 0.05
"""How often an adopted attempt is looked at while its shim is still starting: a few looks, if any."""

UNKNOWN_LOOK_S: Final = 1.0
"""How often an attempt that could not be observed is looked at again."""

LEAVE_LIMIT_S: Final = 5.0
"""How long a shim that has recorded the exit is waited for, so that it stays no zombie."""

_READY_DESCRIPTOR: Final = 3
_EMPTY_LOOKS: Final = 3

_TITLE_ROOM: Final = " " * 200
"""Kept free in the command line of the process that forks shims, for what each of them is."""

LAUNCH_RECORDED = declare(
    "launch.recorded", "a launch record and no shim; the next supervisor declares the attempt void"
)
SHIM_SPAWNED = declare("shim.spawned", "a shim on its way; the next supervisor adopts it or declares it void")
ATTEMPT_VOIDED = declare("attempt.voided", "a void attempt, which no shim will ever start")


class Launcher(Protocol):
    """Starts attempts, talks to them and sees them end."""

    def launch(self, paths: AttemptPaths, record: LaunchRecord) -> None:
        """Record what to start, durably, and start it. Returns without waiting for it.

        Raises:
            SpaceError: The disk is full. `void` the attempt: it has not started.
            OSError: The shim could not be started. Likewise.
        """
        ...

    def signal(self, paths: AttemptPaths, signum: int) -> bool:
        """Send the shim a signal: TERM to drain, again for "now", QUIT to kill. False if it has ended.

        Raises:
            TryAgainError: An adopted shim has not said yet who it is.
            CorruptError: Its record cannot be read.
            OSError: It could not be observed.
        """
        ...

    def void(self, paths: AttemptPaths, reason: str) -> bool:
        """See to it that an attempt never starts.

        Returns:
            True if nothing of it ever ran or will; False if a shim is, or was, at work: probe again.

        Raises:
            SpaceError: The disk is full.
        """
        ...

    def watch(self, paths: AttemptPaths) -> AsyncIterator[ProbeResult]:
        """Yield the state of an attempt, and each change, up to the final one.

        Final are `ProbedEnded`, `ProbedLost` and `ProbedNotStarted`.

        An attempt that is `ProbedStarting` and has no shim is declared void on the way, so this always gets
        somewhere.
        """
        ...

    def end_survivors(self, paths: AttemptPaths) -> int:
        """Kill what is left of an attempt whose shim is gone; return how many that were. Blocks.

        Raises:
            TryAgainError: Some would not end in time; the message names them.
            CorruptError: The shim's record cannot be read, so they cannot be told.
        """
        ...

    def release_gpus(self, paths: AttemptPaths, indices: Collection[int]) -> Holding:
        """End what still holds the GPUs of an attempt that is over; return what does all the same. Blocks.

        Raises:
            CorruptError: Its records cannot be read, so they cannot be told.
        """
        ...


class ShimLauncher:
    """Runs each attempt under a shim, a process of its own that outlives the supervisor.

    Args:
        clock: Measures limits.
        python: Interpreter of the shim; it must have trainerd.
        gpus: Of this machine; None looks for them at the first need.
        io: Makes the calls that block while an attempt is watched.
        uses_cgroups: Whether attempts get cgroups of their own, where some are to be had.
        limits_memory: Whether these hold an attempt to the memory that its launch record allows.
        meets_parked: Whether an attempt may begin in a standby that a process of this user has left waiting.

    Attributes:
        standbys: Shims that were started in advance.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        python: str = sys.executable,
        gpus: Gpus | None = None,
        io: BoundedIo | None = None,
        uses_cgroups: bool = True,
        limits_memory: bool = True,
        meets_parked: bool = False,
    ) -> None:
        self._uses_cgroups = uses_cgroups
        self._limits_memory = limits_memory
        self._clock = clock or SystemClock()
        self._gpus = gpus
        self._io = io if io is not None else BoundedIo()
        self._python = python
        self._children: dict[Path, ShimChild] = {}
        self._seen: dict[Path, ProcessIdentity] = {}
        self._template = ShimTemplate(
            lambda orders: self._spawn_process([TEMPLATE_OPTION, _TITLE_ROOM], orders=orders)
        )
        self.standbys = Standbys(
            lambda orders, recipe: self._spawn_process(
                [PREPARED_OPTION, _TITLE_ROOM], orders=orders, ready=recipe
            ),
            meets_parked=meets_parked,
        )

    @property
    def child_pids(self) -> frozenset[int]:
        """Shims started by this process and not yet collected by `watch`."""
        template = self._template.pid
        shims = frozenset(child.identity.pid for child in self._children.values())
        return shims | self.standbys.pids | ({template} if template is not None else frozenset())

    def prepare_template(self) -> None:
        """Have a process at hand that forks the shims, until `dismiss_template`.

        Raises:
            OSError: It cannot be started.
        """
        self._template.prepare()

    async def template_ended(self) -> None:
        """Return when that process has ended. Until there is another, each shim is started on its own."""
        await self._template.ended()

    def dismiss_template(self) -> None:
        """End that process, and no shim."""
        self._template.dismiss()

    def launch(self, paths: AttemptPaths, record: LaunchRecord) -> None:
        make_directory(paths.root)
        record = self.as_allowed(record)
        records.write(paths.launch, record)
        LAUNCH_RECORDED.hit()
        self._children[paths.root] = (
            self.standbys.take(paths.root, record) or self._template.fork(paths.root) or self._spawn(paths)
        )
        SHIM_SPAWNED.hit()

    def as_allowed(self, record: LaunchRecord) -> LaunchRecord:
        """Return what is launched of a record: without what this supervisor was told not to use."""
        if not self._uses_cgroups:
            record = replace(record, uses_cgroup=False)
        if not self._limits_memory:
            record = replace(record, memory_bytes=None)
        return record

    def _spawn(self, paths: AttemptPaths) -> ShimChild:
        is_ready, ready = os.pipe2(os.O_CLOEXEC)
        try:
            with translated_space_errors(paths.shim_log):
                pid = self._spawn_process(
                    [str(paths.root), "--ready-fd", str(_READY_DESCRIPTOR)],
                    log=str(paths.shim_log),
                    ready=ready,
                )
        except BaseException:
            os.close(is_ready)
            raise
        finally:
            os.close(ready)
        identity = identify(pid)
        assert identity is not None, "a child that was not collected is there"
        return ShimChild(identity, is_ready)

    def _spawn_process(
        self,
        words: list[str],
        *,
        log: str = os.devnull,
        ready: int | None = None,
        orders: int | None = None,
    ) -> int:
        """Start a shim; return its pid."""
        standard_input: tuple[Any, ...] = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        if orders is not None:
            standard_input = (os.POSIX_SPAWN_DUP2, orders, 0)
        return os.posix_spawn(
            self._python,
            [self._python, "-P", "-m", "trainerd.shim", *words],
            os.environ,
            file_actions=[
                standard_input,
                *([] if ready is None else [(os.POSIX_SPAWN_DUP2, ready, _READY_DESCRIPTOR)]),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            # Held from the first instruction on: no request to stop is lost or kills the shim.
            setsigmask=sorted(HELD),
        )

    def signal(self, paths: AttemptPaths, signum: int) -> bool:
        shim = self._shim(paths)
        if shim is None:
            if isinstance(probe(paths), ProbedStarting):
                raise TryAgainError(f"{paths.root}: its shim has not said yet who it is")
            return False
        descriptor = open_pidfd(shim)
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, signum)
            if is_stopped(shim):  # it could not answer, and its ranks would train on
                signal.pidfd_send_signal(descriptor, signal.SIGCONT)
                _log.warning("attempt.shim-continued", pid=shim.pid, folder=str(paths.root))
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return is_alive(shim)

    def _shim(self, paths: AttemptPaths) -> ProcessIdentity | None:
        """Return the shim of an attempt.

        The one recorded on disk comes first: of two that were started it need not be the last.
        """
        child = self._children.get(paths.root)
        try:
            record = records.read(paths.shim, ShimRecord)
        except CorruptError:
            if child is None:
                raise
            record = None
        if record is not None:
            return record.process
        if child is not None:
            return child.identity
        # Its run folder was deleted while it ran.
        return self._seen.get(paths.root)

    def void(self, paths: AttemptPaths, reason: str) -> bool:
        make_directory(paths.root)
        try:
            with translated_space_errors(paths.lock), held_lock(paths, self._clock, wait_s=0):
                if paths.shim.exists() or paths.exit.exists():
                    return False
                if not paths.void.exists():
                    records.write(paths.void, VoidRecord(reason))
                ATTEMPT_VOIDED.hit()
                return True
        except LockedError:
            return False

    async def watch(self, paths: AttemptPaths) -> AsyncIterator[ProbeResult]:
        shown: ProbeResult | None = None
        while True:
            try:
                state = await self._io.observe(paths.root, lambda: self._look(paths))
            except NotObservedError as error:
                state = ProbedUnknown(str(error))
            seen = self._seen.get(paths.root)
            if isinstance(state, ProbedNotStarted) and not state.is_void and seen is not None:
                # The last rank may have ended and the shim still try to record that.
                state = (
                    ProbedRunning(seen, has_records=False)
                    if is_alive(seen)
                    else ProbedLost("its run folder was deleted while it ran", seen)
                )
            if isinstance(state, ProbedRunning):
                self._seen[paths.root] = state.shim
            if isinstance(state, ProbedEnded | ProbedLost | ProbedElsewhere | ProbedNotStarted):
                await self._collect(paths)
                yield state
                self._seen.pop(paths.root, None)
                return
            if state != shown:
                yield state
                shown = state
            await self._change(paths, state)

    def _look(self, paths: AttemptPaths) -> ProbeResult:
        state = probe(paths)
        if not isinstance(state, ProbedStarting):
            return state
        child = self._children.get(paths.root)
        if child is not None and is_alive(child.identity):
            return state
        why = "its shim ended before it started anything" if child else "no shim had started it"
        self.void(paths, why)
        return probe(paths)

    async def _change(self, paths: AttemptPaths, state: ProbeResult) -> None:
        """Return when it may be worth to look again."""
        child = self._children.get(paths.root)
        is_settled = isinstance(state, ProbedRunning) and (bool(state.ranks) or not state.has_records)
        if child is not None and not is_settled and child.is_ready is not None:
            await readable(child.is_ready)
            child.close()
        elif isinstance(state, ProbedRunning) and (is_settled or child is not None):
            await self._end_of(state.shim)
        else:
            await asyncio.sleep(
                ADOPTION_LOOK_S if isinstance(state, ProbedStarting | ProbedRunning) else UNKNOWN_LOOK_S
            )

    async def _end_of(self, shim: ProcessIdentity) -> None:
        try:
            descriptor = open_pidfd(shim)
        except OSError:
            await asyncio.sleep(UNKNOWN_LOOK_S)
            return
        if descriptor is None:
            return
        try:
            await readable(descriptor)
            collect_child(descriptor)
        finally:
            os.close(descriptor)

    async def _collect(self, paths: AttemptPaths) -> None:
        """See the shim out: it has written its last record and is leaving, or has left."""
        with contextlib.suppress(CorruptError, OSError, TimeoutError, NotObservedError):
            shim = await self._io.observe(paths.root, lambda: self._shim(paths))
            if shim is not None:
                await asyncio.wait_for(self._end_of(shim), LEAVE_LIMIT_S)
        child = self._children.pop(paths.root, None)
        if child is not None:
            child.close()

    def end_survivors(self, paths: AttemptPaths) -> int:
        shim_record = records.read(paths.shim, ShimRecord)
        if shim_record is None:
            known_shim = self._seen.get(paths.root) or shim_by_mark(paths.root)
            shim_record = ShimRecord(known_shim, 0.0) if known_shim is not None else None
        if shim_record is None or shim_record.process.boot_id != boot_id():
            return 0
        shim = shim_record.process
        if is_alive(shim):
            raise InternalError(f"{paths.root}: its shim lives, so these are no survivors")
        try:
            ranks = records.read(paths.ranks, RanksRecord)
        except CorruptError:
            ranks = None  # the mark finds them
        known = set(ranks.processes) if ranks is not None else set()
        killed = self._end_cgroups(shim_record)
        mark = attempt_mark(paths.root, shim)
        ended = end_processes(
            lambda: find_descendants(mark, since_ticks=shim.start_ticks, known=known),
            self._clock,
            limit_s=SURVIVORS_LIMIT_S,
            empty_looks=_EMPTY_LOOKS,
        )
        if ended.left:
            pids = ", ".join(str(identity.pid) for identity in ended.left)
            raise TryAgainError(f"{paths.root}: these processes of a lost attempt would not end: {pids}")
        with contextlib.suppress(FileNotFoundError):
            sweep_temporary(paths.root)
        return killed + ended.killed

    def _end_cgroups(self, shim: ShimRecord) -> int:
        """End all that is in the cgroups of an attempt whose shim is gone, and remove them.

        Return how many.
        """
        killed: set[int] = set()
        for folder in folders_of(shim):
            killed |= end_members(folder, lambda: None, self._clock, limit_s=SURVIVORS_LIMIT_S)
            if not remove_empty(folder):
                raise TryAgainError(f"{folder}: processes of a lost attempt would not leave this cgroup")
        return len(killed)

    def release_gpus(self, paths: AttemptPaths, indices: Collection[int]) -> Holding:
        shim_record = records.read(paths.shim, ShimRecord)
        if shim_record is None or shim_record.process.boot_id != boot_id():
            return Holding()
        if self._gpus is None:
            self._gpus = find_gpus()
        gpus, mark = self._gpus, attempt_mark(paths.root, shim_record.process)
        record = records.read(paths.ranks, RanksRecord)
        ranks = record.processes if record is not None else ()
        end_processes(
            lambda: who_holds(gpus, indices, mark=mark, ranks=ranks).living,
            self._clock,
            limit_s=SURVIVORS_LIMIT_S,
        )
        return who_holds(gpus, indices, mark=mark, ranks=ranks)
