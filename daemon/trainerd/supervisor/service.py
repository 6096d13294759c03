"""The supervisor as a whole: its folders, its lock, its parts, its beginning and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import structlog

from trainerd.contract.clock import SystemClock
from trainerd.contract.durable import make_directory, sweep_temporary
from trainerd.contract.paths import StatePaths
from trainerd.errors import UserError
from trainerd.supervisor.desk import Desk
from trainerd.supervisor.instance_lock import instance_lock
from trainerd.supervisor.journal import Journal
from trainerd.supervisor.launcher import ShimLauncher
from trainerd.supervisor.ledger import Ledger
from trainerd.supervisor.logging import configure_logging
from trainerd.supervisor.loop import Loop
from trainerd.supervisor.notify import Notifier
from trainerd.supervisor.scheduler import machine_capacity
from trainerd.supervisor.specs.folder import SpecFolder
from trainerd.supervisor.specs.trust import TrustPolicy
from trainerd.supervisor.specs.watch import FolderWatcher
from trainerd.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DRAIN_MARGIN_S: Final = 30.0
"""How long after the longest grace period the supervisor waits for shims before it leaves without them."""

HURRY_KILL_S: Final = 10.0
"""How long after being hurried the ranks may take before they are killed."""

REQUESTS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Signals by which the supervisor is asked to leave or to begin anew."""

HEALTH_S: Final = 5.0
"""Longest time between two words to systemd about how things are."""

_log = structlog.get_logger(__name__)


def serve(*, jobs_dir: Path, state_dir: Path) -> None:
    """Supervise until asked to stop; then drain everything and return. SIGHUP runs the program anew in place.

    Raises:
        LockedError: Another supervisor runs on the state folder.
        SpaceError: The state folder is full or read-only.
        UserError: A folder cannot be used, or the journal is of a newer trainerd.
        CorruptError: The journal is damaged.
    """
    paths = StatePaths(state_dir.absolute())
    _make_folder(paths.root, "--state")
    # Held until there is somebody to note them, here and across an exec: a request to stop that came in between
    # would else end the supervisor without a drain.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
    try:
        is_reload = _supervise(paths, jobs_dir.absolute())
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    if is_reload:
        # Same process, new code and configuration. Attempts are found as after any other end of a supervisor;
        # the lock and the journal are closed by now. A crash here is one more such end.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell is wanted
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _supervise(paths: StatePaths, jobs_dir: Path) -> bool:
    """Supervise; return whether to begin anew, as after SIGHUP."""
    with instance_lock(paths.lock):
        _make_folder(paths.log.parent, "--state")
        _make_folder(paths.runs, "--state")
        sweep_temporary(paths.root)
        with configure_logging(paths.log):
            journal = Journal(paths.journal)
            try:
                return asyncio.run(_Service(paths, jobs_dir, journal).run())
            finally:
                journal.close()


def _make_folder(path: Path, option: str) -> None:
    try:
        make_directory(path)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {path}: {error.strerror}", hint=f"choose another {option}"
        ) from error


class _Service:
    """One life of the supervisor."""

    def __init__(self, paths: StatePaths, jobs_dir: Path, journal: Journal) -> None:
        clock = SystemClock()
        self._paths = paths
        self._jobs_dir = jobs_dir
        self._notifier = Notifier()
        ledger = Ledger(journal, machine_capacity(), clock)
        self._make_jobs_folder(is_new=not ledger.jobs)
        folder = SpecFolder(jobs_dir, trust=TrustPolicy.of_this_user(), clock=clock, holders=_holders(ledger))
        self._loop = Loop(paths, ledger, folder, ShimLauncher(clock=clock), clock)
        self._desk = Desk(self._loop, journal, paths, jobs_dir, started_wall_s=clock.wall_s())
        self._stop_requests = 0
        self._is_reloading = False
        self._stop_asked = asyncio.Event()

    def _make_jobs_folder(self, *, is_new: bool) -> None:
        """Make it, unless jobs are known: then its absence is more likely a missing mount than a wish."""
        if self._jobs_dir.is_dir():
            return
        if not is_new:
            raise UserError(
                f"the jobs folder {self._jobs_dir} is not there, and the journal knows jobs",
                hint="mount it, or name the right one with --jobs; make it empty to have all jobs forgotten",
            )
        _make_folder(self._jobs_dir, "--jobs")

    async def run(self) -> bool:
        """Supervise until asked to stop, then drain; return whether it was asked to begin anew instead."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._note_stop_request)
        loop.add_signal_handler(signal.SIGHUP, self._note_reload_request)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, REQUESTS)
        watcher = FolderWatcher(self._jobs_dir, lambda: _call_soon(loop, self._loop.rescan))
        api_stop = asyncio.Event()
        _log.info("supervisor.started", version=VERSION, pid=os.getpid(), state=str(self._paths.root))
        try:
            async with asyncio.TaskGroup() as tasks:
                api = tasks.create_task(self._serve_api(api_stop))
                work = tasks.create_task(self._loop.run())
                health = tasks.create_task(self._report_health())
                watcher.start()
                await self._stop_asked.wait()
                if self._is_reloading:
                    self._notifier.reloading()
                else:
                    await self._drain()
                health.cancel()
                work.cancel()
                api_stop.set()
                await asyncio.wait([api])
        except BaseExceptionGroup as group:
            raise _first_error(group) from group
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
            watcher.close()
        _log.info("supervisor.reloading" if self._is_reloading else "supervisor.stopped", pid=os.getpid())
        return self._is_reloading

    def _note_reload_request(self) -> None:
        # One that is on its way out has nothing to reload.
        self._is_reloading = self._is_reloading or not self._stop_requests
        self._stop_asked.set()

    def _note_stop_request(self) -> None:
        self._stop_requests += 1
        self._is_reloading = False
        self._stop_asked.set()
        if self._stop_requests > 1:
            self._hurry()

    async def _serve_api(self, stop: asyncio.Event) -> None:
        from trainerd.supervisor.api import create_app, serve

        ready = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve(create_app(self._desk), self._paths.socket, stop=stop, ready=ready))
            await ready.wait()
            self._notifier.ready()
            _log.info("supervisor.ready", socket=str(self._paths.socket), jobs=str(self._jobs_dir))

    async def _drain(self) -> None:
        self._notifier.stopping()
        live = [job for job in self._loop.ledger.jobs.values() if job.is_live]
        graces_s = [job.spec.grace_s for job in live if job.spec is not None]
        limit_s = max(graces_s, default=0.0) + DRAIN_MARGIN_S
        _log.info("supervisor.draining", jobs=len(live), limit_s=limit_s)
        self._notifier.extend(limit_s)
        try:
            await asyncio.wait_for(self._loop.drain_all(), limit_s)
        except TimeoutError:
            left = sorted(job.name for job in self._loop.ledger.jobs.values() if job.is_live)
            # Their shims go on without us, and the next supervisor collects what they record.
            _log.error("supervisor.leaves-attempts", left=left, limit_s=limit_s)

    def _hurry(self) -> None:
        """Pass on that it is urgent: the ranks are told "now", and killed soon after."""
        _log.warning("supervisor.hurried", requests=self._stop_requests)
        for keeper in self._loop.keepers.values():
            keeper.signal(signal.SIGTERM if self._stop_requests == 2 else signal.SIGQUIT)
        if self._stop_requests == 2:
            asyncio.get_running_loop().call_later(HURRY_KILL_S, self._kill_all)

    def _kill_all(self) -> None:
        for keeper in self._loop.keepers.values():
            keeper.signal(signal.SIGQUIT)

    async def _report_health(self) -> None:
        interval_s = min(self._notifier.watchdog_interval_s or HEALTH_S, HEALTH_S)
        while True:
            self._notifier.alive()
            counts = self._desk.jobs_by_state()
            self._notifier.status(
                ", ".join(f"{count} {state}" for state, count in counts.items()) or "no jobs"
            )
            await asyncio.sleep(interval_s)


def _holders(ledger: Ledger) -> dict[str, Path]:
    from pathlib import Path

    return {name: Path(job.spec.spec_path) for name, job in ledger.jobs.items() if job.spec is not None}


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and so has the reason to wake it
        loop.call_soon_threadsafe(call)


def _first_error(error: BaseException) -> BaseException:
    """Return what went wrong first: the others followed from it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
