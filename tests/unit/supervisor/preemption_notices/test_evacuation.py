"""Sources that are asked, and a loop that is told: no network, and a loop that only notes."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import structlog

from tests.support.supervisor_objects import job, spec
from trainerd.contract.clock import SystemClock
from trainerd.contract.paths import StatePaths
from trainerd.supervisor.bounded_io import BoundedIo
from trainerd.supervisor.journal.journal import Journal
from trainerd.supervisor.ledger import Ledger
from trainerd.supervisor.loop import Loop
from trainerd.supervisor.machine.states import Running
from trainerd.supervisor.preemption_notices import evacuation
from trainerd.supervisor.preemption_notices.taking import NotSeenError, Taking
from trainerd.supervisor.preemption_notices.taking_plan import PASSED_S
from trainerd.supervisor.scheduler import Capacity


class Source:
    name = "fake"
    poll_s = 0.01

    def __init__(self, look):
        self.look = look


class NotingLoop:
    def __init__(self, **jobs):
        self.ledger = SimpleNamespace(jobs=jobs)
        self.monitors = {}
        self.kept_back = ""
        self.is_draining = False
        self.drained = []

    def keep_back(self, why, *, is_draining):
        self.kept_back, self.is_draining = why, is_draining

    def let_go(self):
        self.kept_back = ""

    def drain_for(self, names, why):
        self.drained += names


def run(source, scenario, monkeypatch, **jobs):
    """Run an evacuation beside a scenario; return the loop, the notices and the log."""
    monkeypatch.setattr(evacuation, "TICK_S", 0.01)
    loop, told = NotingLoop(**jobs), []
    outbox = SimpleNamespace(offer=lambda notice, more: told.append(notice.message))

    async def main():
        watch = evacuation.Evacuation(
            loop,
            [source],
            outbox,
            SystemClock(),
            io=BoundedIo(),
            predict=lambda _name: lambda: 1.0,
            margin_s=0.0,
        )
        task = asyncio.create_task(watch.run())
        await asyncio.wait_for(scenario(loop), 5)
        task.cancel()
        await asyncio.wait([task])

    with structlog.testing.capture_logs() as logs:
        asyncio.run(main())
    return loop, told, [line["event"] for line in logs]


async def until(is_so):
    while not is_so():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def test_a_notice_drains_and_keeps_back_until_it_is_taken_back(monkeypatch):
    notices = [Taking("AWS", "terminate", deadline_wall_s=time.time() + 60)]

    async def scenario(loop):
        await until(lambda: loop.drained == ["ant"] and loop.kept_back.startswith("AWS takes"))
        notices.clear()
        await until(lambda: not loop.kept_back)

    ant = job(Running(), spec=spec())
    _, told, logs = run(Source(lambda: tuple(notices)), scenario, monkeypatch, ant=ant)
    assert told[0].startswith("AWS takes this machine at ")
    assert told[1].startswith("cancelled: AWS takes")
    assert logs == ["preemption.notice", "preemption.cancelled"]


def test_a_machine_that_is_still_there_is_told_of_and_its_jobs_go_on(monkeypatch):
    deadline_s = time.time() - PASSED_S + 0.2
    notices = (Taking("AWS", "terminate", deadline_wall_s=deadline_s),)

    async def scenario(loop):
        await until(lambda: loop.kept_back.startswith("AWS takes") and loop.is_draining)
        await until(lambda: not loop.kept_back)

    _, told, logs = run(Source(lambda: notices), scenario, monkeypatch)
    assert told[1].startswith("the machine is still there: AWS takes")
    assert logs == ["preemption.notice", "preemption.passed"]


def test_a_recommendation_is_not_called_a_drain(monkeypatch):
    notice = Taking("AWS", "rebalance", "recommends to leave this machine", drains=False)

    async def scenario(loop):
        await until(lambda: loop.kept_back == "AWS recommends to leave this machine")

    loop, told, _ = run(Source(lambda: (notice,)), scenario, monkeypatch, ant=job(Running(), spec=spec()))
    assert (loop.is_draining, loop.drained) == (False, [])
    assert told == ["AWS recommends to leave this machine"]


def test_a_source_that_fails_or_has_a_fault_is_no_notice(monkeypatch):
    looks = iter([NotSeenError("status 500"), ZeroDivisionError()])

    def look():
        error = next(looks, None)
        if error is not None:
            raise error
        return ()

    async def scenario(loop):
        await until(lambda: next(iter(looks), "") == "" and not loop.kept_back)

    loop, told, logs = run(Source(look), scenario, monkeypatch, ant=job(Running()))
    assert (loop.drained, told) == ([], [])
    assert set(logs) <= {"preemption.not-observed"}
    assert logs


def test_a_source_that_hangs_is_asked_once_and_keeps_jobs_back_for_a_limited_time(monkeypatch):
    monkeypatch.setattr(evacuation, "LOOK_LIMIT_S", 0.02)
    monkeypatch.setattr(evacuation, "FIRST_LOOK_LIMIT_S", 0.1)
    release, asked = threading.Event(), []

    def look():
        asked.append(1)
        release.wait(10)
        return ()

    async def scenario(loop):
        await until(lambda: loop.kept_back == evacuation.ASKING)
        await until(lambda: not loop.kept_back)

    _, _, logs = run(Source(look), scenario, monkeypatch)
    release.set()
    assert (asked, logs) == ([1], ["preemption.not-observed"])


def test_the_loop_says_whether_it_drains_and_starts_no_job_before_the_notice_is_over(tmp_path):
    ledger = Ledger(Journal(":memory:"), Capacity(4), SystemClock())
    nothing = SimpleNamespace()
    loop = Loop(StatePaths(tmp_path), ledger, nothing, nothing, SystemClock(), io=nothing)
    loop._has_scanned = ledger.grants_slots = True
    loop.keep_back("AWS takes this machine", is_draining=True)
    assert loop.preemption == "draining: AWS takes this machine"
    loop.keep_back("AWS recommends to leave", is_draining=False)
    assert loop.preemption == "starting nothing: AWS recommends to leave"
    loop.release_all()
    assert not ledger.grants_slots, "the operator's hold is over, the notice is not"
    loop.let_go()
    assert (loop.preemption, ledger.grants_slots) == ("", True)
