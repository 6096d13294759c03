"""A drain is signalled until the shim has got it, or has ended."""

from __future__ import annotations

import asyncio
import signal

import pytest

from trainerd.contract.clock import SystemClock
from trainerd.contract.paths import RunPaths
from trainerd.contract.resolved import ResolvedJob
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

    def drained(shim):
        events = []
        job = ResolvedJob("ant", ("true",), str(tmp_path), str(tmp_path / "ant.yaml"), "v1")

        async def run():
            begun = []
            monitor = Monitor(
                MonitoredAttempt(job, RunPaths(tmp_path / "ant"), 1, "v1", ()),
                launcher=shim,
                say=events.append,
                clock=SystemClock(),
                begin=lambda work: begun.append(asyncio.ensure_future(work)),
            )
            monitor._is_launched.set()
            monitor.drain()
            await asyncio.wait_for(begun[0], 30)

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


def test_a_shim_that_has_ended_was_not_signalled(drained):
    shim = FakeShim(False)
    assert drained(shim) == []
    assert shim.signals == [signal.SIGTERM]
