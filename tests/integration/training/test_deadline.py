"""Where no step boundary comes within the grace period, the newest snapshot in memory is saved instead."""

import signal
import subprocess
import sys
import time

import pytest

from tests.support.training_runs import REPOSITORY, train, training_environment
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.paths import RunPaths
from trainerd.contract.signals import SECOND_AFTER_S

pytestmark = pytest.mark.torch

SCRIPT = REPOSITORY / "tests" / "support" / "scripts" / "long_step.py"
GRACE_S = 3.0


def hanging(run, *arguments):
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env=training_environment(run),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("hangs"):
            return process
    raise AssertionError(process.communicate()[0])


@pytest.mark.parametrize("hang", ["sleep", "spin"])
def test_a_step_that_is_too_long_is_left_for_the_snapshot_before_it(tmp_path, hang):
    process = hanging(tmp_path, "--hang", hang)
    began_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, time.monotonic() - began_s < GRACE_S) == (DRAINED, True)
    newest = CheckpointStore.of_run(RunPaths(tmp_path)).newest_sound()
    assert newest.step in {4, 5}  # a copy a step, unless that would take more than 1 % of the time
    assert newest.manifest.reason == "flushed"
    assert f"SIGTERM, no step boundary came within the 3 s of grace: saved {newest.name}" in output


def test_a_second_signal_means_now_unless_it_is_the_same_request(tmp_path):
    grace_s = 60.0
    process = hanging(tmp_path, "--hang", "sleep", "--grace-s", grace_s)
    began_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(SECOND_AFTER_S / 2)
    process.send_signal(signal.SIGTERM)  # to every process at the same moment, and relayed by another one
    time.sleep(SECOND_AFTER_S / 2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, time.monotonic() - began_s < grace_s / 2) == (DRAINED, True)
    assert "a second signal, SIGTERM, means now: saved step-00000000" in output


def test_what_was_flushed_is_resumed_from(tmp_path):
    process = hanging(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    ending = train(tmp_path, "--at", 99, script=SCRIPT)
    assert ending.code == 0
    assert CheckpointStore.of_run(RunPaths(tmp_path)).checkpoints()[-1].step == 8
