"""A signal to the whole process group, as systemd, Slurm, torchrun and a terminal send it, costs nothing.

Plain PyTorch loses its loader workers to it, and with them the rank before it can save.
TRAINERD_GROUP_SIGNALS=20 runs each case twenty times.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.training_runs import FORK_SERVER, REPOSITORY, train, training_environment
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.paths import RunPaths
from trainerd.contract.process import identify, is_alive

SCRIPT = REPOSITORY / "tests" / "support" / "scripts" / "slow_loader.py"
TIMES = int(os.environ.get("TRAINERD_GROUP_SIGNALS", "1"))
START_LIMIT_S = 180  # spawned workers import torch at once: 6 s, or 30 s on a busy machine
END_LIMIT_S = 60
LOOK_S = 0.005

pytestmark = [pytest.mark.torch, pytest.mark.timeout(TIMES * (START_LIMIT_S + 2 * END_LIMIT_S))]


def wait_for(look, process, log):
    deadline_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline_s:
        if found := look():
            return found
        assert process.poll() is None, log.read_text()
        time.sleep(LOOK_S)
    raise AssertionError("waited in vain")


def children_of(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [identity for child in children if (identity := identify(int(child)))]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        pytest.param(signal.SIGINT, id="SIGINT", marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, id="SIGUSR1", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        "fork",
        "fork --persistent",
        "spawn",
        pytest.param("forkserver", marks=pytest.mark.slow),
        "fork --workers 0",
    ],
)
def test_a_signal_to_the_group_saves_and_leaves_nobody(tmp_path, options, number):
    for time_ in range(TIMES):
        run = RunPaths(tmp_path / f"run-{time_}")
        log = tmp_path / f"log-{time_}"
        process = FORK_SERVER.launch(
            SCRIPT, ["--context", *options.split()], training_environment(run.root), log
        )
        try:
            page = run.attempt(1).heartbeat(0)
            wait_for(lambda page=page: (beat := read_heartbeat(page)) and beat.step >= 3, process, log)
            family = children_of(process.pid)
            os.killpg(process.pid, number)
            code = process.wait(END_LIMIT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(END_LIMIT_S)
        assert code == DRAINED, log.read_text()
        newest = CheckpointStore.of_run(run).newest_sound()
        assert (newest.manifest.reason, newest.step >= 3) == ("drain", True)
        deadline_s = time.monotonic() + END_LIMIT_S
        while any(map(is_alive, family)) and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
        assert not any(map(is_alive, family))


@pytest.mark.slow
def test_an_exception_ends_the_process_though_its_workers_are_stuck(tmp_path):
    """The interpreter ends by asking them with SIGTERM, which they ignore, and waiting."""
    ending = train(tmp_path, "--stuck", "--fail-at", 5, script=SCRIPT)
    assert ending.code == 1
    assert "a bug of the script's own" in ending.output
