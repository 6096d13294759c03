"""How a process leaves when it is asked to stop, and what it saves when it raises."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.training_runs import REPOSITORY, train, training_environment
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import records
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import OutcomeRecord

pytestmark = [pytest.mark.torch, pytest.mark.timeout(2 * 180)]

SCRIPT = REPOSITORY / "tests" / "support" / "scripts" / "leaving_ways.py"
AT = 5
LIMIT_S = 180  # importing torch takes 2 s, or 40 s on a busy machine


def outcome_of(folder):
    return records.read(RunPaths(folder).attempt(1).outcome(0), OutcomeRecord)


def saved_steps(folder):
    return [each.step for each in CheckpointStore.of_run(RunPaths(folder)).checkpoints()]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU"])
def test_every_signal_by_which_systems_ask_drains(tmp_path, name):
    ending = train(tmp_path, "signal", name, script=SCRIPT)
    assert ending.code == DRAINED, ending.output
    assert (outcome_of(tmp_path).kind, saved_steps(tmp_path)) == ("drained", [AT])
    assert f"trainerd: {name}: saved step-00000000{AT}, exiting 85" in ending.output
    assert "finally ran" in ending.output


def test_a_script_that_catches_everything_is_told_again(tmp_path):
    ending = train(tmp_path, "signal", "SIGTERM", "--kept", script=SCRIPT)
    assert ending.code == DRAINED, ending.output
    assert ending.output.splitlines().count("kept") == 1  # the next call raises
    assert (outcome_of(tmp_path).kind, saved_steps(tmp_path)) == ("drained", [AT])


@pytest.mark.parametrize("way", ["raises", "pipe"])
def test_an_exception_while_a_drain_is_pending_saves_what_is_held_and_drains(tmp_path, way):
    ending = train(tmp_path, way, "SIGTERM", script=SCRIPT)
    assert ending.code == DRAINED, ending.output
    assert (outcome_of(tmp_path).kind, saved_steps(tmp_path)) == ("drained", [AT - 1])
    assert train(tmp_path, way, "SIGTERM", script=SCRIPT).code == 0


def test_a_crash_saves_the_newest_boundary_in_memory(tmp_path):
    ending = train(tmp_path, "crash", script=SCRIPT)
    assert ending.code == 1
    assert "a bug of the script's own" in ending.output
    assert (outcome_of(tmp_path).kind, saved_steps(tmp_path)) == ("exception", [AT - 1])


def test_a_thread_of_the_script_may_ask(tmp_path):
    ending = train(tmp_path, "ask", "the budget\x1b[2J is spent", script=SCRIPT)
    assert ending.code == DRAINED, ending.output
    assert r"trainerd: the budget\x1b[2J is spent: saved" in ending.output
    assert "last words" in ending.output
    assert saved_steps(tmp_path) == [AT]


def test_the_end_of_forked_children_is_no_request_to_stop(tmp_path):
    ending = train(tmp_path, "pool", script=SCRIPT)
    assert ending.code == 0, ending.output
    assert "pool 6" in ending.output
    assert f"terminated {-signal.SIGTERM}, draining False" in ending.output
    assert "finished at step 12" in ending.output


def test_a_forked_child_has_no_session(tmp_path):
    ending = train(tmp_path, "fork", script=SCRIPT)
    assert ending.code == 0, ending.output
    assert "child: this process was forked from the one that opened the session" in ending.output
    assert "child 3" in ending.output
    assert "finished at step 12" in ending.output
    assert outcome_of(tmp_path).kind == "finished"


def start(folder, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env=training_environment(folder, **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_buffers_and_atexit_are_seen_to(tmp_path):
    rows = tmp_path / "rows.csv"
    ending = start(tmp_path / "run", "signal", "SIGTERM", ROWS=rows)
    output, _ = ending.communicate(timeout=LIMIT_S)
    assert (ending.returncode, rows.read_text()) == (DRAINED, "a row in a buffer\n"), output
    assert output.index("finally ran") < output.index("atexit ran")


@pytest.mark.slow
def test_a_cleanup_that_hangs_is_ended_within_the_grace_period(tmp_path):
    process = start(tmp_path, "signal", "SIGTERM", "--slow-cleanup", "100")
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == DRAINED
    assert "the cleanup was not over after 15 s: exiting 85 now" in output


@pytest.mark.slow
def test_a_signal_before_the_session_is_kept_for_it(tmp_path):
    process = start(tmp_path, "signal", "SIGTERM", "--early", "2")
    for line in process.stdout:
        if line == "early\n":
            break
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)  # the same request once more, of a launcher
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == DRAINED, output
    assert "SIGINT came before the session is open" in output
    assert (outcome_of(tmp_path).kind, saved_steps(tmp_path)) == ("drained", [0])
