"""A drain is signalled until the shim has got it, or has ended."""

from __future__ import annotations

import asyncio
import signal

import pytest

from trainerd.contract.clock import SystemClock
from trainerd.contract.paths import RunPaths
from trainerd.contract.resolved import ResolvedJob
from trainerd.contract.signals import SECOND_AFTER_S, is_second
from trainerd.errors import CorruptError, TryAgainError
from trainerd.supervisor.attempt import monitor as monitors
from trainerd.supervisor.attempt.monitor import Monitor, MonitoredAttempt
from trainerd.supervisor.machine.job_events import DrainSignalled


class FakeShim:
    """Answers each signal with the next result: an error, whether it was there, and then that it was."""

    def __init__(self, *results):
        self.results = list(results)
        self.signals = []

    def signal(self, _paths, signum):
        self.signals.append(signum)
        result = self.results.pop(0) if self.results else True
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def drained(tmp_path, monkeypatch):
    monkeypatch.setattr(monitors, "LOOK_AGAIN_S", 0.001)
    monkeypatch.setattr(monitors, "SIGNAL_RETRY_S", 0.001)

    def drained(shim, act=Monitor.drain, *, clock=None):
        events = []
        job = ResolvedJob("ant", ("true",), str(tmp_path), str(tmp_path / "ant.yaml"), "v1")

        async def run():
            begun = []
            monitor = Monitor(
                MonitoredAttempt(job, RunPaths(tmp_path / "ant"), 1, "v1", ()),
                launcher=shim,
                say=events.append,
                clock=clock or SystemClock(),
                begin=lambda work: begun.append(asyncio.ensure_future(work)),
            )
            monitor._is_launched.set()
            act(monitor)
            await asyncio.wait_for(asyncio.gather(*begun), 30)

        asyncio.run(run())
        return events

    return drained


@pytest.mark.parametrize(
    "error",
    [
        TryAgainError("its shim has not said yet who it is"),
        CorruptError("shim.json cannot be read"),
        OSError("no"),
    ],
    ids=["unknown shim", "unreadable record", "not observed"],
)
def test_a_drain_that_could_not_be_signalled_is_signalled_again(drained, error):
    shim = FakeShim(error, error)
    assert drained(shim) == [DrainSignalled(1)]
    assert shim.signals == [signal.SIGTERM] * 3


def test_a_drain_is_signalled_once(drained):
    """A second signal means at once."""
    shim = FakeShim()
    assert drained(shim) == [DrainSignalled(1)]
    assert shim.signals == [signal.SIGTERM]


@pytest.mark.parametrize("errors", [0, 2], ids=["at once", "after two failures"])
def test_an_attempt_asked_twice_while_the_request_is_on_its_way_is_signalled_once(drained, errors):
    """A job with higher priority needs the slot while it starts, and then it is seen running."""
    shim = FakeShim(*[TryAgainError("its shim has not said yet who it is")] * errors)

    def twice(monitor):
        monitor.drain()
        monitor.drain()

    assert drained(shim, twice) == [DrainSignalled(1)]
    assert shim.signals == [signal.SIGTERM] * (errors + 1)


def test_an_attempt_asked_again_after_the_request_was_delivered_is_signalled_once(drained):
    shim = FakeShim()

    async def again(monitor):
        await monitor._drain()
        monitor.drain()

    assert drained(shim, lambda monitor: monitor._begin(again(monitor))) == [DrainSignalled(1)]
    assert shim.signals == [signal.SIGTERM]


def test_a_shim_that_has_ended_was_not_signalled(drained):
    shim = FakeShim(False)
    assert drained(shim) == []
    assert shim.signals == [signal.SIGTERM]


class SleptClock:
    """A clock that only `asyncio.sleep` moves on; notes when each signal was sent."""

    def __init__(self, shim, monkeypatch):
        self.now_s, self.sent_s, send = 100.0, [], shim.signal
        monkeypatch.setattr(shim, "signal", lambda *args: self.sent_s.append(self.now_s) or send(*args))
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    def monotonic_s(self):
        return self.now_s

    async def sleep(self, delay_s):
        self.now_s += max(delay_s, 0.0)


@pytest.mark.parametrize("after_s", [0.0, SECOND_AFTER_S - 0.3, SECOND_AFTER_S, 30.0])
def test_a_second_request_is_sent_when_the_shim_takes_it_for_one(drained, monkeypatch, after_s):
    """The first one may have been sent late: the journal is written before."""
    shim = FakeShim()
    clock = SleptClock(shim, monkeypatch)

    async def drain_and_hurry(monitor):
        await monitor._drain()
        clock.now_s += after_s
        await monitor._hurry()

    drained(shim, lambda monitor: monitor._begin(drain_and_hurry(monitor)), clock=clock)
    assert shim.signals == [signal.SIGTERM] * 3
    first_s, second_s, _again_s = clock.sent_s
    assert is_second(first_s, second_s)
    assert second_s == 100.0 + max(after_s, SECOND_AFTER_S)


@pytest.mark.parametrize("late_s", [0.0, 0.06, 0.5, monitors.LATE_S_MAX])
def test_a_shim_that_reads_the_first_request_late_hears_the_second_all_the_same(drained, monkeypatch, late_s):
    """On a busy machine it took the second request for the first, and killed the ranks 10 s later."""
    shim = FakeShim()
    clock = SleptClock(shim, monkeypatch)
    drained(shim, Monitor.hurry, clock=clock)
    first_read_s, *later_read_s = [clock.sent_s[0] + late_s, *clock.sent_s[1:]]
    assert any(is_second(first_read_s, at_s, is_relayed=True) for at_s in later_read_s)


def test_an_attempt_that_is_hurried_before_its_drain_was_sent_is_asked_twice(drained, monkeypatch):
    """With hardly any time left the drain and the second request come at the same moment."""
    shim = FakeShim()
    clock = SleptClock(shim, monkeypatch)
    assert drained(shim, Monitor.hurry, clock=clock) == []
    assert shim.signals == [signal.SIGTERM] * 3
    assert is_second(*clock.sent_s[:2])


def test_a_second_request_is_not_waited_with_if_the_shim_cannot_be_signalled(drained, monkeypatch):
    shim = FakeShim(OSError("no"))
    drained(shim, Monitor.hurry, clock=SleptClock(shim, monkeypatch))
    assert shim.signals == [signal.SIGTERM]


def test_a_third_request_kills(drained):
    shim = FakeShim()
    drained(shim, Monitor.kill)
    assert shim.signals == [signal.SIGQUIT]
