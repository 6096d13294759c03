"""A filesystem that hangs stops neither the API nor the watchdog, and no job is judged by it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
from types import SimpleNamespace

import httpx
import pytest

from tests.support.supervisor_objects import NOW, exit_record, job, spec
from trainerd.contract.clock import SystemClock
from trainerd.contract.heartbeat import Heartbeat, Phase
from trainerd.contract.paths import StatePaths
from trainerd.contract.process import ProcessIdentity
from trainerd.supervisor import loop as loops
from trainerd.supervisor.api.app import create_app
from trainerd.supervisor.api.facade import Facade
from trainerd.supervisor.api.recent_attempts import RecentAttempts
from trainerd.supervisor.attempt import launcher as launchers
from trainerd.supervisor.attempt.probe import ProbedEnded, ProbedRunning, ProbedUnknown
from trainerd.supervisor.attempt.run_files import DiskRunFiles
from trainerd.supervisor.bounded_io import BoundedIo
from trainerd.supervisor.journal.journal import Entry, Journal
from trainerd.supervisor.ledger import Ledger
from trainerd.supervisor.machine.states import FileMark, Paused, Rejected, Running
from trainerd.supervisor.scheduler import Capacity
from trainerd.supervisor.service.sd_notify import Notifier
from trainerd.supervisor.service.service import _Service
from trainerd.supervisor.service.stop_requests import StopRequests
from trainerd.supervisor.specs.view import Accepted, FolderView

LIMIT_S = 0.2
SHIM = ProcessIdentity(4242, 1, "boot")
STATES = {
    "heartbeat": Running(),
    "has_room": Paused(1.0, NOW, has_waited=True),
    "script_marks": Rejected("program", (FileMark("/train.py", 1, 1),)),
    "newest_attempt": None,  # a spec that is new
}


class HangingFiles(DiskRunFiles):
    """The run folder of `ant` hangs in one call, until the gate is opened; `bee` moves on with every look."""

    def __init__(self, hangs: str) -> None:
        self.hangs = hangs
        self.gate = threading.Event()
        self.calls = 0
        self.beats = 0

    def _pass(self, call: str, name: str) -> None:
        if (call, name) == (self.hangs, "ant"):
            self.calls += 1
            assert self.gate.wait(60)

    def heartbeat(self, run, attempt, rank):
        self._pass("heartbeat", run.root.name)
        self.beats += 1
        return Heartbeat(Phase.STEP, beats=self.beats, step=self.beats, loss=math.nan)

    def has_room(self, run):
        self._pass("has_room", run.root.name)
        return False

    def script_marks(self, job):
        self._pass("script_marks", job.name)
        return (FileMark("/train.py", 1, 1),)

    def findings(self, run, _attempt, told):
        self._pass("findings", run.root.name)
        return [], told

    def newest_attempt(self, run):
        self._pass("newest_attempt", run.root.name)
        return 0, False


class FakeLauncher:
    """Attempts that run for ever; nothing is launched, and signals are kept."""

    def __init__(self) -> None:
        self.signals = []

    async def watch(self, _paths):
        yield ProbedRunning(SHIM)
        await asyncio.Event().wait()

    def signal(self, paths, signum):
        self.signals.append((paths, signum))
        return True


class Folder:
    def __init__(self, *specs) -> None:
        self.view = FolderView({one.name: Accepted(one) for one in specs})

    def scan(self):
        return self.view


@pytest.mark.parametrize("hangs", list(STATES))
def test_the_api_answers_and_the_watchdog_is_fed_while_a_run_folder_hangs(tmp_path, monkeypatch, hangs):
    monkeypatch.setattr(loops, "TICK_S", 0.01)
    monkeypatch.setattr(loops, "SCAN_RETRY_S", 0.01)
    watchdog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    watchdog.bind(str(tmp_path / "notify"))
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "20000"})
    files, launcher, io = HangingFiles(hangs), FakeLauncher(), BoundedIo(limit_s=LIMIT_S)
    paths, clock = StatePaths(tmp_path), SystemClock()
    bee = job(Running(), name="bee", spec=spec(name="bee"), attempt=1, best_step=0)
    known = [bee] if STATES[hangs] is None else [job(STATES[hangs]), bee]

    async def run(journal):
        loop = loops.Loop(
            paths,
            Ledger(journal, Capacity(4), clock),
            Folder(spec(), spec(name="bee")),
            launcher,
            clock,
            files=files,
            io=io,
            observers=[recent.note],
        )
        facade = Facade(loop, journal, paths, tmp_path, recent=recent, started_wall_s=NOW)
        service = SimpleNamespace(_notifier=notifier, _facade=facade, _stop_requests=StopRequests())
        transport = httpx.ASGITransport(create_app(facade))
        async with asyncio.timeout(60), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            tasks = [
                asyncio.create_task(loop.run()),
                asyncio.create_task(_Service._report_health(service)),
            ]
            while not files.calls:  # noqa: ASYNC110 - threads make no events
                await asyncio.sleep(0.001)
            fed_before = fed(watchdog)
            before = loop.ledger.jobs.get("ant")
            # Longer than the limit, so that it is given up meanwhile; its thread still hangs.
            for _ in range(10):
                answer = await asyncio.wait_for(client.get("/v1/jobs"), LIMIT_S * 20)
                assert answer.status_code == 200
                await asyncio.sleep(LIMIT_S / 4)
            assert io.hung
            assert fed(watchdog) > fed_before + 5
            assert loop.ledger.jobs.get("ant") is before
            assert launcher.signals == []
            assert files.calls <= 2  # one on adoption, one of the ticks
            assert loop.ledger.jobs["bee"].best_step > 0  # the others are looked at all the same
            if before is None:
                assert (await client.post("/v1/rescan")).status_code == 503
            files.gate.set()
            while io.hung or "ant" not in loop.ledger.jobs:  # noqa: ASYNC110 - threads make no events
                await asyncio.sleep(0.001)
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as journal, watchdog:
        journal.commit([Entry(one.name, one, "test", "test") for one in known], wall_s=NOW)
        recent = RecentAttempts(journal, paths, io)
        try:
            asyncio.run(run(journal))
        finally:
            files.gate.set()


def fed(watchdog: socket.socket) -> int:
    """Return how often the watchdog has been fed since the last call."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            count += watchdog.recv(4096) == b"WATCHDOG=1"
    return count


def test_an_attempt_whose_records_hang_is_unknown_and_not_lost(tmp_path, monkeypatch):
    gate = threading.Event()

    def hangs(_paths):
        assert gate.wait(60)
        return ProbedEnded(exit_record())

    monkeypatch.setattr(launchers, "probe", hangs)
    monkeypatch.setattr(launchers, "UNKNOWN_LOOK_S", 0.01)
    paths = StatePaths(tmp_path).run("ant").attempt(1)

    async def run():
        found = []
        async for state in launchers.ShimLauncher(io=BoundedIo(limit_s=0.05)).watch(paths):
            found.append(type(state))
            gate.set()
        return found

    try:
        assert asyncio.run(run()) == [ProbedUnknown, ProbedEnded]
    finally:
        gate.set()
