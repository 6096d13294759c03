"""Where no step boundary comes within the grace period, the newest snapshot in memory is saved instead."""

import signal
import time

import pytest

from tests.support.training_runs import FORK_SERVER, REPOSITORY, train, training_environment
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.paths import RunPaths
from trainerd.contract.signals import SECOND_AFTER_S

pytestmark = pytest.mark.torch

SCRIPT = REPOSITORY / "tests" / "support" / "scripts" / "long_step.py"
GRACE_S = 4.0
MARGIN_S = 2.0
"""What is left for the flush when it begins: more than it is given by itself, for a machine that is busy."""
END_LIMIT_S = 30
LOOK_S = 0.005


class Hanging:
    """An attempt that comes to a long step, in a process that had torch already."""

    def __init__(self, folder, *arguments):
        self.log = folder / "log"
        self.log.touch()  # the process opens it, in its own time
        run = training_environment(folder / "run")
        self.process = FORK_SERVER.launch(SCRIPT, [*map(str, arguments)], run, self.log)

    def wait_for_hang(self):
        while "hangs\n" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(LOOK_S)

    def send_signal(self, signum):
        self.process.send_signal(signum)

    def ended(self):
        """Wait for its end; return its exit code and what it has said."""
        return self.process.wait(END_LIMIT_S), self.log.read_text()


@pytest.fixture
def hanging(tmp_path):
    started = []

    def start(*arguments):
        started.append(Hanging(tmp_path, *arguments))
        started[-1].wait_for_hang()
        return started[-1]

    yield start
    for each in started:
        each.process.kill()


@pytest.mark.parametrize("hang", ["sleep", "spin"])
def test_a_step_that_is_too_long_is_left_for_the_snapshot_before_it(tmp_path, hanging, hang):
    process = hanging("--hang", hang, "--step-ms", 20, "--grace-s", GRACE_S, "--margin-s", MARGIN_S)
    began_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, output = process.ended()
    assert code == DRAINED
    assert GRACE_S - MARGIN_S <= time.monotonic() - began_s < GRACE_S
    newest = CheckpointStore.of_run(RunPaths(tmp_path / "run")).newest_sound()
    assert newest.step == 5
    assert newest.manifest.reason == "flushed"
    assert f"SIGTERM, no step boundary came within the 4 s of grace: saved {newest.name}" in output


def test_a_second_signal_means_now_unless_it_is_the_same_request(hanging):
    grace_s = 60.0
    process = hanging("--hang", "sleep", "--step-ms", 100, "--grace-s", grace_s)
    began_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(SECOND_AFTER_S / 2)
    process.send_signal(signal.SIGTERM)  # to every process at the same moment, and relayed by another one
    time.sleep(SECOND_AFTER_S / 2)
    assert process.process.poll() is None
    process.send_signal(signal.SIGTERM)
    code, output = process.ended()
    assert (code, time.monotonic() - began_s < grace_s / 2) == (DRAINED, True)
    assert "a second signal, SIGTERM, means now: saved step-00000000" in output


def test_what_was_flushed_is_resumed_from(tmp_path, hanging):
    process = hanging("--step-ms", 100, "--grace-s", 1)
    process.send_signal(signal.SIGTERM)
    process.ended()
    ending = train(tmp_path / "run", "--at", 99, "--step-ms", 0, script=SCRIPT)
    assert ending.code == 0
    assert CheckpointStore.of_run(RunPaths(tmp_path / "run")).checkpoints()[-1].step == 8
