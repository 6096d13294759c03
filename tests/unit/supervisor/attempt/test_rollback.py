"""A job goes back to an older checkpoint: what is newer is set aside before its attempt is launched, not
after."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.checkpoints import FakeClock, commit, names
from tests.support.supervisor_objects import spec
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.paths import RunPaths
from trainerd.supervisor.attempt.monitor import Monitor, MonitoredAttempt
from trainerd.supervisor.attempt.rollback import go_back


@pytest.fixture
def run(tmp_path):
    run = RunPaths(tmp_path / "run")
    store = CheckpointStore.of_run(run)
    with store.lock():
        for step in [5, 10, 15]:
            commit(store, step)
    return run


def test_newer_checkpoints_are_set_aside_and_a_second_time_changes_nothing(run):
    assert go_back(run, "step-000000005", reason="test") == ("step-000000010", "step-000000015")
    assert go_back(run, "step-000000005", reason="test") == ()
    assert names(CheckpointStore.of_run(run)) == ["step-000000005"]
    assert (run.abandoned / "step-000000015").is_dir()


def test_a_checkpoint_that_is_gone_takes_no_other_with_it(run):
    assert go_back(run, "step-000000007", reason="test") == ()
    assert len(names(CheckpointStore.of_run(run))) == 3


class FakeLauncher:
    def __init__(self, run):
        self.run = run
        self.seen = None

    def launch(self, _paths, _record):
        self.seen = names(CheckpointStore.of_run(self.run))
        raise OSError("enough was seen")

    def void(self, _paths, _reason):
        return True


@pytest.mark.parametrize(
    ("goes_back_to", "there"),
    [(None, ["step-000000005", "step-000000010", "step-000000015"]), ("step-000000005", ["step-000000005"])],
)
def test_the_attempt_is_launched_after_that(run, goes_back_to, there):
    launcher, said, tasks = FakeLauncher(run), [], []
    monitor = Monitor(
        MonitoredAttempt(spec(), run, 4, "v1", goes_back_to=goes_back_to),
        launcher=launcher,
        say=said.append,
        clock=FakeClock(),
        begin=tasks.append,
        environ={},
    )
    monitor.launch()
    asyncio.run(tasks[0])
    assert launcher.seen == there
