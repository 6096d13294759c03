"""Sources that are asked, and a loop that is told: no network, and a loop that only notes."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import structlog

from tests.support.supervisor_objects import job, spec
from trainerd.contract.clock import SystemClock
from trainerd.supervisor.bounded_io import BoundedIo
from trainerd.supervisor.machine.states import Running
from trainerd.supervisor.preemption_notices import evacuation
from trainerd.supervisor.preemption_notices.taking import NotSeenError, Taking


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
        self.drained = []

    def keep_back(self, why, *, is_draining):
        self.kept_back = why

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
