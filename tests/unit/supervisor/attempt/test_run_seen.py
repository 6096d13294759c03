"""What a verdict reads from a run folder, from an empty one to one that a stranger wrote."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from trainerd.cli.verdict_ import command
from trainerd.contract import records
from trainerd.contract.heartbeat import HeartbeatWriter, Phase
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import (
    ExitRecord,
    FinishedRecord,
    LaunchRecord,
    NodeEndRecord,
    OutcomeRecord,
    RankExit,
)
from trainerd.contract.session_record import register_session
from trainerd.supervisor.attempt.run_seen import read_run


@pytest.fixture
def run(tmp_path):
    return RunPaths(tmp_path / "run")


def attempt(run, number, kind=None, *, step=0):
    paths = run.attempt(number)
    paths.root.mkdir(parents=True)
    if kind:
        records.write(paths.outcome(0), OutcomeRecord(kind, step=step))
    page = HeartbeatWriter(paths.heartbeat(0))
    zero = dict.fromkeys(
        ("epoch", "epochs", "batch", "batches", "checkpoint_step", "saves", "resumed_step"), 0
    )
    page.beat(Phase.STEP, step=step, loss=0.0, **zero)
    page.close()
    return paths


def verdict(run, *words):
    result = CliRunner().invoke(command, [f"{run.root}", *words])
    return result.exit_code, result.output


def test_a_folder_that_is_missing_has_nothing_to_say(run):
    assert verdict(run)[0] == 85
    assert verdict(run, "--code", "0")[0] == 1


def test_a_finished_run_is_finished_and_json_says_so(run):
    attempt(run, 1, "finished")
    records.write(run.finished, FinishedRecord(5, 1, "step-5", "", 1.0))
    code, output = verdict(run, "--code", "1", "--json")
    assert code == 0
    assert json.loads(output) == {
        "run": str(run.root),
        "verdict": "finished",
        "exit_code": 0,
        "reason": "its session reported the end",
    }


def test_a_program_that_has_opened_no_session_is_not_judged_by_the_attempt_before(run):
    paths = attempt(run, 1, "mismatch")
    for path in (*paths.root.iterdir(), paths.root):
        os.utime(path, (1000.0, 1000.0))
    assert verdict(run, "--code", "143", "--since", "900")[0] == 93
    assert verdict(run, "--code", "143", "--since", "1100")[0] == 85


def test_attempts_without_progress_are_counted_and_drained_ones_are_not(run):
    attempt(run, 1, "exception", step=5)
    attempt(run, 2, "exception", step=5)
    attempt(run, 3, "drained", step=5)
    attempt(run, 4, "exception", step=4)
    assert read_run(run, 1).fruitless == 2
    attempt(run, 5, "exception", step=6)
    assert read_run(run, 1).fruitless == 0
    for number in range(6, 11):
        attempt(run, number, "exception", step=6)
    code, output = verdict(run, "--code", "1")
    assert (code, "5 attempts in a row made no progress (budget 5)" in output) == (1, True)


def test_a_session_that_runs_here_is_seen(run):
    paths = attempt(run, 1)
    register_session(paths, rank=0, shim_pid=None)
    assert read_run(run, 1).is_live


def test_what_trainerd_exec_has_judged_is_taken_from_it(run):
    paths = attempt(run, 1)
    records.write(paths.launch, LaunchRecord("job", 1, ("true",), "/", {}, 1, 1.0, ("log",)))
    records.write(paths.exit, ExitRecord((RankExit(0, exit_code=1),), 1.0, 2.0, 1.0, "b"))
    assert verdict(run, "--code", "1")[0] == 1
    assert verdict(run, "--code", "-9")[0] == 85


@pytest.fixture
def shared(run):
    """The folder that several nodes share, in which six attempts have begun."""
    run.node_ends.mkdir(parents=True)
    for number in range(1, 7):
        run.attempt(number).root.mkdir(parents=True)
    return run


def test_a_run_of_several_nodes_is_judged_by_what_they_said_and_no_code_is_needed(shared):
    assert verdict(shared)[0] == 85, "the nodes count their failures, and none has given up"
    records.write(shared.node_end(1), NodeEndRecord(1, 85, "asked to leave", "a"))
    assert verdict(shared) == (85, "again: node 1 has ended: asked to leave\n")
    records.write(shared.node_end(0), NodeEndRecord(0, 1, "the budget is spent", "b"))
    assert verdict(shared) == (1, "failed: node 0 has ended: the budget is spent\n")
    assert verdict(shared, "--code", "137")[0] == 1
    records.write(shared.finished, FinishedRecord(5, 1, "step-5", "", 1.0))
    assert verdict(shared)[0] == 0


def test_what_a_node_said_of_an_earlier_start_does_not_count(shared):
    records.write(shared.node_end(0), NodeEndRecord(0, 93, "exit code 93", "a"))
    os.utime(shared.node_end(0), (1000.0, 1000.0))
    assert verdict(shared, "--since", "900")[0] == 93
    assert verdict(shared, "--since", "1100")[0] == 85


def test_a_node_whose_own_folder_is_asked_about_is_judged_by_its_own_records(tmp_path, shared):
    own = RunPaths(tmp_path / "own")
    attempt(own, 1, "mismatch")
    own.common_link.symlink_to(shared.root)
    assert verdict(own, "--code", "1")[0] == 93


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": "trainerd.node-end/9"}'])
def test_what_nothing_of_ours_wrote_of_a_node_is_left_out(shared, content):
    shared.node_end(0).write_bytes(content)
    shared.node_end(1).mkdir()
    assert verdict(shared)[0] == 85


def test_checkpoints_that_cannot_be_looked_at_are_left_out(run, monkeypatch):
    def fail(*_args, **_options):
        raise OSError("the disk does not answer")

    attempt(run, 1, "exception")
    monkeypatch.setattr("trainerd.supervisor.attempt.evidence._checkpoints", fail)
    assert read_run(run, 1).evidence.trouble == ("the checkpoints could not be looked at",)


@pytest.mark.parametrize("content", [b"", b"{", b"\0\0\0", b'{"format": "trainerd.exit/9"}'])
def test_records_that_nothing_of_ours_wrote_have_an_answer(run, content):
    paths = attempt(run, 1)
    places = (run.finished, run.job, paths.exit, paths.launch, paths.outcome(0), paths.ranks, paths.shim)
    for path in (*places, paths.heartbeat(0), paths.root / "session-5.json"):
        path.write_bytes(content)
    for code in ("0", "1", "85", "93", "143"):
        assert verdict(run, "--code", code)[0] in {0, 1, 85, 93}


@pytest.mark.parametrize("words", [["--code", "256"], ["--code", "x"], ["--since", "-1"]])
def test_a_code_that_is_none_is_a_usage_error(run, words):
    assert verdict(run, *words)[0] == 2
