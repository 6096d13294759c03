"""Two attempts of one run where no lock keeps them apart: one goes on exactly, the other one says that it is
fenced.

The first attempt is stopped by SIGSTOP, as a machine is that loses its network or is suspended. The second
one resumes and ends the run, or a part of it, and then the first one is woken.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.support.training_runs import FORK_SERVER, REPOSITORY, result_of, train, training_environment
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import records
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import OutcomeRecord

pytestmark = [pytest.mark.torch]

SCRIPT = REPOSITORY / "tests" / "support" / "scripts" / "without_locks.py"
EVERY = {"TRAINERD_CHECKPOINT_EVERY_STEPS": 3}
LIMIT_S = 60

STOPPED_AT = (
    "training.batch=stop@8",
    "training.stepped=stop@11",
    "training.epoch-ended=stop",
    "checkpoint.data.written=stop@4",
    "checkpoint.data.synced=stop@4",
    "checkpoint.manifest.synced=stop@3",
    "checkpoint.staged=stop@3",
    "checkpoint.renamed=stop@3",
    "checkpoint.committed=stop@3",
    "history.synced=stop@3",
    "prune.renamed=stop",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(run, script=SCRIPT, **EVERY).code == 0
    return result_of(run)


def wait_until_stopped(pid: int) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline_s, "the first attempt was not stopped"
        time.sleep(0.01)


def struck(run: Path, log: Path, undisturbed, failpoints: str, *, second: str = "") -> None:
    first = FORK_SERVER.launch(SCRIPT, [], training_environment(run, failpoints=failpoints, **EVERY), log)
    try:
        wait_until_stopped(first.pid)
        if second:
            train(run, script=SCRIPT, failpoints=second, **EVERY)
        else:
            assert train(run, script=SCRIPT, **EVERY).code == 0
        os.kill(first.pid, signal.SIGCONT)
        code = first.wait(LIMIT_S)
    finally:
        first.send_signal(signal.SIGKILL)
    assert (code, "another attempt has taken over this run" in log.read_text()) == (1, True), log.read_text()
    said = records.read(RunPaths(run).attempt(1).outcome(0), OutcomeRecord)
    assert said is not None
    assert said.kind == "fenced"
    if second:
        assert train(run, script=SCRIPT, **EVERY).code == 0
    assert result_of(run) == undisturbed
    checkpoints = CheckpointStore.of_run(RunPaths(run)).checkpoints()
    twice = [each.name for each in checkpoints if each.ordinal and not each.manifest.is_final]
    assert not twice, "two checkpoints of one step"


def test_an_attempt_that_wakes_up_before_its_rename_is_fenced(tmp_path, undisturbed):
    struck(tmp_path / "run", tmp_path / "log", undisturbed, "checkpoint.staged=stop@3")


@pytest.mark.slow
@pytest.mark.parametrize("second", ["", "training.stepped=kill@5"], ids=["to its end", "killed later"])
@pytest.mark.parametrize("failpoints", STOPPED_AT)
def test_an_attempt_that_wakes_up_anywhere_changes_nothing(tmp_path, undisturbed, failpoints, second):
    struck(tmp_path / "run", tmp_path / "log", undisturbed, failpoints, second=second)
