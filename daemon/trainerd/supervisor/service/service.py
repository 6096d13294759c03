"""The supervisor as a whole: its folders, its lock, its parts, its beginning and its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from trainerd.checkpoint.space import free_bytes
from trainerd.contract.clock import SystemClock
from trainerd.contract.durable import make_directory, sweep_temporary
from trainerd.contract.paths import StatePaths
from trainerd.contract.signals import STOP
from trainerd.errors import TrainerdError, UserError
from trainerd.supervisor.api.facade import Facade
from trainerd.supervisor.api.recent_attempts import RecentAttempts
from trainerd.supervisor.api.run_readings import RunReadings
from trainerd.supervisor.api.unix_socket import listening
from trainerd.supervisor.attempt.cgroups import prepare_cgroups
from trainerd.supervisor.attempt.launcher import ShimLauncher
from trainerd.supervisor.attempt.run_files import DiskRunFiles
from trainerd.supervisor.bounded_io import BoundedIo
from trainerd.supervisor.containment import HandlingPage
from trainerd.supervisor.journal.journal import Journal
from trainerd.supervisor.ledger import Ledger
from trainerd.supervisor.log.logger import configure_logging
from trainerd.supervisor.log.outside import emit
from trainerd.supervisor.loop import Loop
from trainerd.supervisor.notices.announcer import Announcer
from trainerd.supervisor.notices.disk_watch import LOOK_S, DiskWatch, look_at_disk
from trainerd.supervisor.notices.outbox import LEAVE_LIMIT_S, Outbox
from trainerd.supervisor.notices.payloads import Origin
from trainerd.supervisor.preemption_notices.evacuation import Evacuation
from trainerd.supervisor.scheduler import machine_capacity
from trainerd.supervisor.service.drain_plan import Prospect
from trainerd.supervisor.service.handover import Handover, take
from trainerd.supervisor.service.instance_lock import instance_lock
from trainerd.supervisor.service.jobs_folder_lock import JobsFolderLock, offer_lock
from trainerd.supervisor.service.next_program import replace_this_program, why_it_cannot_start
from trainerd.supervisor.service.past_drains import past_drains_s
from trainerd.supervisor.service.preemption_section import taking_sources
from trainerd.supervisor.service.priority import go_first
from trainerd.supervisor.service.sd_notify import Notifier
from trainerd.supervisor.service.served_page import ServedPage, page_of
from trainerd.supervisor.service.shutdown import Leaving
from trainerd.supervisor.service.socket_group import check_socket_group
from trainerd.supervisor.service.stop_requests import StopRequests
from trainerd.supervisor.specs.folder import SpecFolder
from trainerd.supervisor.specs.trust import TrustPolicy
from trainerd.supervisor.specs.watch import Arrivals, FolderWatcher
from trainerd.version import VERSION

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from trainerd.supervisor.api.web.web_server import WebSettings
    from trainerd.supervisor.service.configuration import Configuration

LEAVE: Final = STOP - {signal.SIGHUP}
"""Signals by which the supervisor is asked to leave: batch systems send SIGUSR1 some time before the end."""

REQUESTS: Final = LEAVE | {signal.SIGHUP}
"""Those, and the one by which it is asked to start again."""

_PRIVATE: Final = 0o700
_FOR_A_GROUP: Final = 0o750

HEALTH_S: Final = 5.0
"""Longest time between two words to systemd about how things are."""

RELOAD_NOTICES_LIMIT_S: Final = 1.0
"""How long a reload waits for notices that are on their way, in seconds: requests wait meanwhile."""

TEMPLATE_RETRY_S: Final = 1.0
"""Between the end of the process that forks the shims and the start of another."""

_log = structlog.get_logger(__name__)


def serve(
    *, jobs_dir: Path, state_dir: Path, configuration: Configuration, web: WebSettings | None = None
) -> None:
    """Supervise until asked to stop; then drain everything. SIGHUP starts the program again in place.

    Args:
        jobs_dir: The jobs folder.
        state_dir: The state folder.
        configuration: Limits and settings.
        web: How the page is served, None if it is not.

    Raises:
        LockedError: Another supervisor runs on the state folder, or on the jobs folder.
        SpaceError: The state folder is full or read-only.
        UserError: A folder cannot be used, or the journal is of a newer trainerd.
        CorruptError: The journal is damaged.
    """
    paths = StatePaths(state_dir.absolute())
    _make_state_folder(paths.root, configuration.socket.group_id)
    check_socket_group(configuration.socket, paths.root)
    # Held until they can be noted, here and across an exec: a request to stop that came in
    # between would else end the supervisor without a drain.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
    try:
        while (handover := _supervise(paths, jobs_dir.absolute(), configuration, web)) is not None:
            # Same process, new code and configuration. Attempts are found as after any other end of a
            # supervisor; the journal is closed by now. A crash here is one more such end.
            handover.offer()
            try:
                replace_this_program()
            except OSError as error:  # it was there when it was checked
                emit("supervisor.reload-failed", reason=f"{error}: going on as before")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _supervise(
    paths: StatePaths, jobs_dir: Path, configuration: Configuration, web: WebSettings | None
) -> Handover | None:
    """Supervise; return what the next program takes over, None if there is to be none."""
    handover = take()
    held, inherited = (handover.lock, handover.inherited_socket) if handover else (None, None)
    with instance_lock(paths.lock, held) as lock:
        _make_folder(paths.log.parent, "--state")
        _make_folder(paths.runs, "--state")
        sweep_temporary(paths.root)
        log, group_id = configuration.log, configuration.socket.group_id
        with (
            configure_logging(
                paths.log, level=log.level_number, bytes_max=log.file_size, files_max=log.files
            ),
            listening(paths.socket, inherited=inherited, group_id=group_id) as listener,
            page_of(web, paths, may_fail=handover is not None) as page,
        ):
            journal = Journal(paths.journal)
            try:
                service = _Service(paths, jobs_dir, configuration, journal, listener, page=page)
                with service.jobs_lock as jobs_lock:
                    if not asyncio.run(service.run()):
                        return None
                    jobs = jobs_lock.descriptor
                    offer_lock(os.dup(jobs) if jobs is not None else None)
            finally:
                journal.close()
            return Handover(os.dup(lock), listener.detach(), _file_of(paths.socket))


def _file_of(path: Path) -> tuple[int, int]:
    """Return device and inode of a name, those of no file if it was removed.

    The file is made again then.
    """
    try:
        status = path.lstat()
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def _make_state_folder(path: Path, group_id: int | None) -> None:
    """Make it, closed to all but this user and the group of the socket, unless it is there."""
    is_new = not path.is_dir()
    _make_folder(path.parent, "--state")
    _make_folder(path, "--state", mode=_PRIVATE)
    if is_new and group_id is not None:
        with contextlib.suppress(PermissionError):  # no member of it: the check of the group says so
            os.chown(path, -1, group_id)
            path.chmod(_FOR_A_GROUP)


def _make_folder(path: Path, option: str, *, mode: int = 0o777) -> None:
    try:
        make_directory(path, mode=mode)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {path}: {error.strerror}", hint=f"choose another {option}"
        ) from error


class _Service:
    """One life of the supervisor."""

    def __init__(
        self,
        paths: StatePaths,
        jobs_dir: Path,
        configuration: Configuration,
        journal: Journal,
        listener: socket.socket,
        *,
        page: ServedPage | None,
    ) -> None:
        clock = SystemClock()
        self._paths = paths
        self._configuration = configuration
        self._listener = listener
        self._served_page = page
        self._jobs_dir = jobs_dir
        self._notifier = Notifier()
        self._page = HandlingPage(paths.handling)
        ledger = Ledger(journal, machine_capacity(configuration.limits), clock, page=self._page)
        self._make_jobs_folder(is_new=not ledger.jobs)
        self.jobs_lock = JobsFolderLock(jobs_dir)
        self._arrivals = Arrivals()
        folder = SpecFolder(
            jobs_dir,
            trust=TrustPolicy.of_this_user(),
            clock=clock,
            holders=_holders(ledger),
            take_arrived=self._arrivals.take,
            keep_lock=self.jobs_lock.keep,
        )
        prepare_cgroups(paths)
        io = BoundedIo()
        self._launcher = ShimLauncher(
            clock=clock,
            io=io,
            uses_cgroups=configuration.cgroups.use,
            limits_memory=configuration.cgroups.limit_memory,
        )
        recent = RecentAttempts(journal, paths, io)
        origin = Origin(os.uname().nodename, str(paths.root))
        self._outbox = Outbox(configuration.hooks, origin, configuration.mail)
        announcer = Announcer(self._outbox, clock)
        self._io = io
        log = configuration.log
        self._loop = Loop(
            paths,
            ledger,
            folder,
            self._launcher,
            clock,
            io=io,
            files=DiskRunFiles(log_bytes_max=log.rank_size, log_copies=log.rank_copies),
            observers=[recent.note, announcer.note],
            note_finding=announcer.note_finding,
            own_pids=lambda: self._outbox.running.pids,
        )
        self._evacuation = Evacuation(
            self._loop,
            taking_sources(configuration.preemption, clock, has_left=lambda: not _may_have_processes(ledger)),
            self._outbox,
            clock,
            io=io,
            predict=self._predicted_drain,
            margin_s=configuration.preemption.margin,
        )
        self._leaving = Leaving(
            self._loop,
            paths,
            self._notifier,
            configuration.stop,
            io,
            taken_wall_s=lambda: self._evacuation.deadline_wall_s,
        )
        self._facade = Facade(
            self._loop,
            journal,
            paths,
            jobs_dir,
            recent=recent,
            outbox=self._outbox,
            started_wall_s=clock.wall_s(),
        )
        self._readings = RunReadings(paths, io)
        self._stop_requests = StopRequests()
        self._stop_asked = asyncio.Event()
        self._reload_asked = asyncio.Event()

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

    def _predicted_drain(self, name: str) -> Callable[[], float]:
        """Return a call that says how long the drain of a job will probably take; it blocks."""
        job = self._loop.ledger.jobs[name]
        grace_s = job.spec.grace_s if job.spec is not None else 0.0
        run, attempt = self._paths.run(name), job.attempt
        return lambda: Prospect(name, grace_s, past_drains_s(run, attempt)).expected_s

    async def run(self) -> bool:
        """Supervise until asked to stop, then drain; return whether it was asked to start again instead."""
        loop = asyncio.get_running_loop()
        for signum in LEAVE:
            loop.add_signal_handler(signum, self._note_stop_request)
        loop.add_signal_handler(signal.SIGHUP, self._reload_asked.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, REQUESTS)
        watcher = FolderWatcher(
            self._jobs_dir, lambda: _call_soon(loop, self._loop.rescan), arrivals=self._arrivals
        )
        api_stop = asyncio.Event()
        go_first()
        _log.info("supervisor.started", version=VERSION, pid=os.getpid(), state=str(self._paths.root))
        try:
            async with asyncio.TaskGroup() as tasks:
                api = tasks.create_task(self._serve_api(api_stop))
                work = tasks.create_task(self._loop.run())
                health = tasks.create_task(self._report_health())
                template = tasks.create_task(self._keep_template())
                if self._served_page is not None:
                    page = self._served_page.serve(
                        self._facade,
                        self._readings,
                        stop=api_stop,
                        group_id=self._configuration.socket.group_id,
                    )
                    tasks.create_task(page)
                disk = tasks.create_task(self._watch_disk())
                evacuation = tasks.create_task(self._evacuation.run())
                watcher.start()
                is_reload = await self._until_asked()
                evacuation.cancel()
                if not is_reload:
                    await self._leaving.drain()
                disk.cancel()
                await self._outbox.leave(RELOAD_NOTICES_LIMIT_S if is_reload else LEAVE_LIMIT_S)
                # Requests in progress are answered by those who still work.
                api_stop.set()
                await asyncio.wait([api])
                health.cancel()
                template.cancel()
                work.cancel()
        except BaseExceptionGroup as group:
            raise _first_error(group) from group
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
            watcher.close()
            self._launcher.dismiss_template()
        self._page.close()
        _log.info("supervisor.reloading" if is_reload else "supervisor.stopped", pid=os.getpid())
        if is_reload and self._stop_requests.count:
            # It came too late for this program. Held until the next one can note it.
            os.kill(os.getpid(), signal.SIGTERM)
        return is_reload

    async def _until_asked(self) -> bool:
        """Return False when asked to stop, True when asked to start again and the next program is sound."""
        stop = asyncio.create_task(self._stop_asked.wait())
        try:
            while True:
                reload = asyncio.create_task(self._reload_asked.wait())
                await asyncio.wait([stop, reload], return_when=asyncio.FIRST_COMPLETED)
                reload.cancel()
                if stop.done():
                    return False
                self._reload_asked.clear()
                self._notifier.reloading()
                check = asyncio.create_task(why_it_cannot_start())
                await asyncio.wait([stop, check], return_when=asyncio.FIRST_COMPLETED)
                if stop.done():
                    check.cancel()
                    await asyncio.wait([check])
                    return False
                refusal = check.result()
                if refusal is None:
                    return True
                _log.error("supervisor.reload-refused", reason=refusal)
                self._facade.note_refused_reload(refusal, SystemClock().wall_s())
                self._notifier.ready()
                self._notifier.status(f"reload refused, going on as before: {refusal}")
        finally:
            stop.cancel()

    def _note_stop_request(self) -> None:
        if self._stop_requests.note(SystemClock().monotonic_s()):
            self._stop_asked.set()
            if self._stop_requests.count > 1:
                self._leaving.hurry()

    async def _serve_api(self, stop: asyncio.Event) -> None:
        from trainerd.supervisor.api.app import create_app
        from trainerd.supervisor.api.server import serve

        ready = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                serve(
                    create_app(self._facade, readings=self._readings),
                    self._listener,
                    stop=stop,
                    ready=ready,
                    group_id=self._configuration.socket.group_id,
                    runs=self._paths.runs,
                )
            )
            await ready.wait()
            # All that was loaded stays: it need not be looked through again and again while requests wait.
            gc.freeze()
            gc.enable()
            _log.info("supervisor.ready", socket=str(self._paths.socket), jobs_folder=str(self._jobs_dir))
            self._notifier.ready()

    async def _keep_template(self) -> None:
        """Have a process at hand that forks the shims."""
        complaint = ""
        while True:
            try:
                self._launcher.prepare_template()
                await self._launcher.template_ended()
            except OSError as error:
                if str(error) != complaint:
                    complaint = str(error)
                    _log.warning("supervisor.no-shim-template", reason=complaint)
            await asyncio.sleep(TEMPLATE_RETRY_S)

    async def _watch_disk(self) -> None:
        """Tell when the disk of the state folder runs low."""
        watch = DiskWatch(self._configuration.disk.low)
        folder = self._paths.root
        while True:
            with contextlib.suppress(OSError, TrainerdError):  # not observed: nothing is known
                free = await self._io.observe("free space", partial(free_bytes, folder))
                watch, notice = look_at_disk(watch, free, folder=str(folder), wall_s=SystemClock().wall_s())
                if notice is not None:
                    _log.warning("disk.low", folder=str(folder), reason=notice.message)
                    self._outbox.offer(notice)
            await asyncio.sleep(LOOK_S)

    async def _report_health(self) -> None:
        interval_s = min(self._notifier.watchdog_interval_s or HEALTH_S, HEALTH_S)
        while True:
            self._notifier.alive()
            if not self._stop_requests.count:  # then what is said is about leaving
                counts = self._facade.jobs_by_state()
                self._notifier.status(
                    ", ".join(f"{count} {state}" for state, count in counts.items()) or "no jobs"
                )
            await asyncio.sleep(interval_s)


def _may_have_processes(ledger: Ledger) -> bool:
    """Return whether any job may have processes. Called from other threads, too: hence the copy."""
    return any(job.may_have_processes for job in list(ledger.jobs.values()))


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
