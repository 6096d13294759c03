"""An attempt is over, and its slot free, only when nobody of it holds its GPUs."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.supervisor_objects import NOW
from trainerd.contract.clock import SystemClock
from trainerd.contract.paths import RunPaths
from trainerd.contract.process import ProcessIdentity
from trainerd.contract.records import ExitRecord, RankExit
from trainerd.contract.resolved import ResolvedJob
from trainerd.supervisor.attempt import monitor as monitors
from trainerd.supervisor.attempt.gpu_release import TEARDOWN_LIMIT_S, Holding
from trainerd.supervisor.attempt.monitor import Monitor, MonitoredAttempt
from trainerd.supervisor.attempt.probe import ProbedEnded
from trainerd.supervisor.machine.job_events import AttemptEnded, ObservationFailed

SOMEBODY = ProcessIdentity(4242, 1, "boot")


class FakeLauncher:
    """An attempt that has ended, and what holds its GPUs at each look."""

    def __init__(self, held: list[Holding]):
        self.held = held
        self.looks = 0

    async def watch(self, _paths):
        yield ProbedEnded(ExitRecord((RankExit(0, exit_code=0),), NOW, NOW, 1.0, "boot"))

    def release_gpus(self, _paths, indices):
        assert indices == (0, 1)
        self.looks += 1
        return self.held.pop(0) if len(self.held) > 1 else self.held[0]


@pytest.fixture
def keep(tmp_path, monkeypatch):
    monkeypatch.setattr(monitors, "LOOK_AGAIN_S", 0.001)

    def keep(launcher, gpus=(0, 1)):
        events = []
        job = ResolvedJob("ant", ("true",), str(tmp_path), str(tmp_path / "ant.yaml"), "v1")

        async def run():
            monitor = Monitor(
                MonitoredAttempt(job, RunPaths(tmp_path / "ant"), 1, "v1", gpus),
                launcher=launcher,
                say=events.append,
                clock=SystemClock(),
                begin=asyncio.create_task,
            )
            await monitor._watch_once()

        asyncio.run(run())
        return events

    return keep


def test_the_end_is_said_when_the_last_holder_has_gone(keep):
    launcher = FakeLauncher([Holding(living=(SOMEBODY,)), Holding(gone=(7,)), Holding()])
    *before, end = keep(launcher)
    assert [type(event) for event in before] == [ObservationFailed, ObservationFailed]
    assert "4242" in before[0].error
    assert isinstance(end, AttemptEnded)


def test_a_number_that_the_driver_names_for_ever_is_waited_for_within_a_limit(keep, monkeypatch):
    monkeypatch.setattr(monitors, "TEARDOWN_LIMIT_S", 0.003)
    launcher = FakeLauncher([Holding(gone=(7,))])
    assert isinstance(keep(launcher)[-1], AttemptEnded)
    assert launcher.looks < TEARDOWN_LIMIT_S


def test_an_attempt_without_gpus_asks_nobody(keep):
    launcher = FakeLauncher([Holding(living=(SOMEBODY,))])
    (end,) = keep(launcher, gpus=())
    assert isinstance(end, AttemptEnded)
    assert launcher.looks == 0
