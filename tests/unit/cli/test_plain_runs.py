"""Runs of a script that was started by hand: `ps`, `status` and `explain` say what its session said."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
from click.testing import CliRunner

from trainerd.cli.main import group
from trainerd.contract import codec, records
from trainerd.contract.paths import StatePaths
from trainerd.contract.records import OutcomeRecord
from trainerd.contract.session_record import FORMAT, read_session, register_session


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRAINERD_STATE", raising=False)
    return StatePaths(tmp_path / ".trainerd")


@pytest.fixture
def attempt(state):
    """An attempt whose session this process has opened."""
    paths = state.run("train").attempt(1)
    paths.root.mkdir(parents=True)
    register_session(paths, rank=0, shim_pid=None)
    return paths


def leave(paths):
    """Let the process of the session be gone."""
    path = paths.session(os.getpid())
    record = read_session(path)
    gone = dataclasses.replace(record, process=dataclasses.replace(record.process, start_ticks=1))
    path.write_bytes(codec.to_json(gone, FORMAT))


def said(*words, code=0):
    result = CliRunner(env={"COLUMNS": "220", "NO_COLOR": "1"}).invoke(group, words)
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.mark.usefixtures("attempt")
def test_a_run_whose_process_lives_runs():
    assert "attempt 1 runs, started by hand: no supervisor would restart it" in said("ps")
    assert said("explain", "train") == "no attempt of train has ended yet\n"
    assert "train: running" in said("status", "train", code=18)


def test_a_run_whose_process_is_gone_without_a_word_has_ended(attempt):
    leave(attempt)
    assert "attempt 1 has ended (lost: its process is gone" in said("ps")
    shown = said("explain", "train")
    assert shown.startswith("attempt 1 lost, ")
    assert "the same command continues the run; no supervisor does" in shown
    assert "train: ended" in said("status", "train", code=17)


@pytest.mark.parametrize(
    ("record", "kind", "reason"),
    [
        (
            OutcomeRecord("exception", 50, None, "builtins.BrokenPipeError", "[Errno 32] Broken pipe"),
            "crashed",
            "BrokenPipeError: [Errno 32] Broken pipe",
        ),
        (
            OutcomeRecord("drained", 50, "step-000000050"),
            "drained",
            "it was asked to stop, and its checkpoint is made",
        ),
        (OutcomeRecord("drained"), "drained", "it was asked to stop, and had nothing to save yet"),
        (OutcomeRecord("finished", 50, "step-000000050"), "finished", "its session reported the end"),
        (
            OutcomeRecord("mismatch", None, None, "trainerd.errors.MismatchError", "no"),
            "rejected",
            "MismatchError",
        ),
        (OutcomeRecord("no-space"), "crashed", "no-space"),
    ],
)
def test_what_the_session_said_of_its_end_is_shown(attempt, record, kind, reason):
    leave(attempt)
    records.write(attempt.outcome(0), record)
    (found,) = json.loads(said("explain", "train", "--json"))
    assert (found["attempt"], found["kind"], found["step"]) == (1, kind, record.step)
    assert found["reason"].startswith(reason)
    assert (found["next_action"] == "none: the run is complete") is (kind == "finished")
    shown = said("ps")
    assert f"attempt 1 has ended ({kind}: {reason}" in shown
    assert "never started" not in shown


def test_of_several_ranks_the_one_that_failed_counts(attempt):
    leave(attempt)
    records.write(attempt.outcome(0), OutcomeRecord("drained", 5))
    records.write(attempt.outcome(1), OutcomeRecord("exception", 5, None, "builtins.ValueError", "no"))
    (found,) = json.loads(said("explain", "train", "--json"))
    assert (found["kind"], found["evidence"][0]) == ("crashed", "rank 1 said so in its outcome record")


def test_all_attempts_are_explained(state, attempt):
    leave(attempt)
    second = state.run("train").attempt(2)
    second.root.mkdir()
    records.write(second.outcome(0), OutcomeRecord("finished", 9, "step-000000009"))
    found = json.loads(said("explain", "train", "--json"))
    assert [each["kind"] for each in found] == ["lost", "finished"]


def test_an_unreadable_record_is_no_end_of_the_view(attempt):
    leave(attempt)
    attempt.outcome(0).write_text("{")
    assert json.loads(said("explain", "train", "--json"))[0]["kind"] == "lost"
