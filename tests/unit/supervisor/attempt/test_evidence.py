"""What is collected of an ending, from real files."""

from __future__ import annotations

import math

import pytest

from tests.support.supervisor_objects import exit_record, spec
from trainerd.contract import records
from trainerd.contract.heartbeat import HeartbeatWriter, Phase
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import FinishedRecord, OutcomeRecord, RankExit
from trainerd.supervisor.attempt.evidence import HIDDEN, gather_evidence, script_marks


@pytest.fixture
def run(tmp_path):
    run = RunPaths(tmp_path / "run")
    run.attempt(3).root.mkdir(parents=True)
    run.rank_log(0).parent.mkdir()
    return run


def gather(run, *ranks, job=None, **fields):
    return gather_evidence(
        job or spec(),
        run,
        3,
        spec_digest="v1",
        ending=exit_record(*ranks or (RankExit(0, exit_code=1),)),
        **fields,
    )


def beat(run, *, step, resumed_step, rank=0):
    writer = HeartbeatWriter(run.attempt(3).heartbeat(rank))
    writer.beat(
        Phase.STEP,
        step=step,
        epoch=0,
        epochs=1,
        batch=0,
        batches=1,
        checkpoint_step=-1,
        loss=math.nan,
        saves=0,
        resumed_step=resumed_step,
    )
    writer.close()


def test_a_plain_command_leaves_little(run):
    found = gather(run)
    assert not found.has_session
    assert (found.step, found.checkpoint, found.trouble) == (None, None, ())


@pytest.mark.parametrize(("step", "has_stepped"), [(120, False), (121, True)])
def test_a_heartbeat_tells_whether_this_attempt_made_a_step(run, step, has_stepped):
    beat(run, step=step, resumed_step=120)
    found = gather(run)
    assert found.has_session
    assert (found.step, found.has_stepped) == (step, has_stepped)


def test_a_finished_record_of_another_spec_says_nothing_about_this_one(run):
    for digest, is_recorded in [("v0", False), ("v1", True)]:
        records.write(run.finished, FinishedRecord(10, 1, "step-000000010", digest, 0.0))
        assert gather(run).is_finish_recorded is is_recorded


def test_records_that_cannot_be_read_are_trouble_not_evidence(run):
    run.attempt(3).outcome(0).write_text("{")
    found = gather(run)
    assert found.outcomes == (None,)
    assert "not valid JSON" in found.trouble[0]


def test_what_a_rank_said_is_found_by_rank(run):
    said = OutcomeRecord("exception", step=7, error_type="ValueError")
    records.write(run.attempt(3).outcome(1), said)
    found = gather(run, RankExit(0, signal=15), RankExit(1, exit_code=1))
    assert found.outcomes == (None, said)
    assert found.step == 7


def test_the_log_tail_is_of_this_attempt_only(run):
    run.rank_log(0).write_text(
        "--- attempt 2 started x ---\nSyntaxError: old\n--- attempt 3 started x ---\nboom\n"
    )
    assert gather(run).log_tail == ("boom",)


def test_an_attempt_that_wrote_nothing_has_no_tail(run):
    run.rank_log(0).write_text("--- attempt 2 started x ---\nSyntaxError: old\n")
    assert gather(run).log_tail == ()


def test_a_huge_line_and_foreign_bytes_do_no_harm(run):
    run.rank_log(0).write_bytes(b"--- attempt 3 started x ---\n" + b"\xff" * 200_000 + b"\nlast\n")
    assert gather(run).log_tail[-1] == "last"
    assert all(len(line) <= 1000 for line in gather(run).log_tail)


def test_secrets_of_the_env_file_are_hidden_in_the_tail(run, tmp_path):
    """What is collected here goes to journal, log and API."""
    secrets = tmp_path / "secrets.env"
    secrets.write_text("TOKEN=hunter2-hunter2\nSHORT=a\n")
    secrets.chmod(0o600)
    run.rank_log(0).write_text("--- attempt 3 started x ---\nbad token hunter2-hunter2 at a place\n")
    said = OutcomeRecord("exception", error_message="hunter2-hunter2?", detail=("no hunter2-hunter2",))
    records.write(run.attempt(3).outcome(0), said)
    found = gather(run, job=spec(env_file=str(secrets)))
    assert found.log_tail == (f"bad token {HIDDEN} at a place",)
    assert (found.outcomes[0].error_message, found.outcomes[0].detail) == (f"{HIDDEN}?", (f"no {HIDDEN}",))


def test_checkpoints_that_cannot_be_looked_at_are_said(run):
    assert "could not be looked at" in gather(run, looks_at_checkpoints=False).trouble[0]


def test_the_script_is_what_the_command_names(tmp_path):
    (tmp_path / "train.py").write_text("pass")
    job = spec(command=("python", "train.py", "--lr", "0.1", "missing.yaml"), workdir=str(tmp_path))
    (before,) = script_marks(job)
    assert before.path == str(tmp_path / "train.py")
    (tmp_path / "train.py").write_text("pass # longer")
    assert script_marks(job) != (before,)
