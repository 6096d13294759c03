"""What is collected of an ending, from real files."""

from __future__ import annotations

import math

import pytest

from tests.support.checkpoints import TENSORS, commit, flip_bit
from tests.support.supervisor_objects import exit_record, spec
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import codec, records
from trainerd.contract.heartbeat import HeartbeatWriter, Phase
from trainerd.contract.paths import RunPaths
from trainerd.contract.process import ProcessIdentity
from trainerd.contract.records import FinishedRecord, OutcomeRecord, RankExit, RanksRecord
from trainerd.contract.session_record import SessionRecord, register_session
from trainerd.supervisor.attempt.evidence import HIDDEN, gather_evidence, script_marks


@pytest.fixture
def run(tmp_path):
    run = RunPaths(tmp_path / "run")
    run.attempt(3).root.mkdir(parents=True)
    run.rank_log(0).parent.mkdir()
    return run


def gather(run, *ranks, job=None, stop_requested_s=None, **fields):
    return gather_evidence(
        job or spec(),
        run,
        3,
        spec_digest="v1",
        ending=exit_record(*ranks or (RankExit(0, exit_code=1),), stop_requested_s=stop_requested_s),
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


def save(run, step, *, attempt=3, **fields):
    store = CheckpointStore.of_run(run)
    with store.lock():
        return commit(store, step, attempt=attempt, **fields)


@pytest.mark.parametrize(("attempt", "is_new"), [(2, False), (3, True)])
def test_a_checkpoint_is_new_only_if_this_attempt_made_it(run, attempt, is_new):
    save(run, 110, attempt=1)
    save(run, 120, attempt=attempt)
    found = gather(run, RankExit(0, exit_code=85))
    assert (found.checkpoint, found.checkpoint_step) == ("step-000000120", 120)
    assert found.checkpoint_before == "step-000000110"
    assert found.is_checkpoint_new is is_new


@pytest.mark.parametrize(
    ("reasons", "before"),
    [
        (["periodic", "periodic", "flushed"], 10),
        (["periodic", "flushed"], 10),
        (["periodic", "flushed", "flushed"], 10),
        (["periodic", "periodic", "flushed", "flushed"], 10),
        (["periodic", "flushed", "periodic"], 20),
        (["flushed", "flushed"], 10),
        (["periodic", "periodic", "memory", "memory"], 10),
        (["flushed"], None),
    ],
)
def test_what_a_crash_saved_is_left_behind_with_the_checkpoint_before_it(run, reasons, before):
    for number, reason in enumerate(reasons, start=1):
        save(run, 10 * number, reason=reason)
    name = f"step-{before:09d}" if before is not None else None
    assert gather(run).checkpoint_before == name


@pytest.mark.parametrize(
    ("attempt", "reason", "saved"),
    [(3, "flushed", "step-000000020"), (3, "periodic", None), (2, "flushed", None)],
)
def test_what_this_attempt_saved_at_its_end_is_told_from_other_checkpoints(run, attempt, reason, saved):
    save(run, 10, attempt=1, reason="flushed")
    save(run, 20, attempt=attempt, reason=reason)
    assert gather(run).saved_at_end == saved


@pytest.mark.parametrize("way", ["exit code 85", "exit code 0 when asked", "outcome record"])
def test_an_ending_that_rests_on_a_checkpoint_has_its_digests_read(run, way):
    """A damaged one proves nothing, whatever its manifest says."""
    save(run, 110)
    flip_bit(save(run, 120).path / TENSORS)
    exit_code, stop_requested_s = 0, None
    if way == "exit code 85":
        exit_code = 85
    elif way == "exit code 0 when asked":
        stop_requested_s = 5.0
    else:
        records.write(run.attempt(3).outcome(0), OutcomeRecord("drained", step=120))
    found = gather(run, RankExit(0, exit_code=exit_code), stop_requested_s=stop_requested_s)
    assert (found.checkpoint, found.checkpoint_step) == ("step-000000110", 110)


def test_a_drain_whose_only_checkpoint_is_damaged_has_none(run):
    flip_bit(save(run, 120).path / TENSORS)
    found = gather(run, RankExit(0, exit_code=85))
    assert (found.checkpoint, found.is_checkpoint_new) == (None, False)


def test_the_script_is_what_the_command_names(tmp_path):
    (tmp_path / "train.py").write_text("pass")
    job = spec(command=("python", "train.py", "--lr", "0.1", "missing.yaml"), workdir=str(tmp_path))
    (before,) = script_marks(job)
    assert before.path == str(tmp_path / "train.py")
    (tmp_path / "train.py").write_text("pass # longer")
    assert script_marks(job) != (before,)


def test_ranks_that_a_launcher_started_are_heard_too(run):
    for rank in range(3):
        records.write(run.attempt(3).outcome(rank), OutcomeRecord("drained", step=rank))
    assert [said.step for said in gather(run, RankExit(0, exit_code=1)).outcomes] == [0, 1, 2]


def registered(run, identity, *chain):
    path = run.attempt(3).session(identity.pid)
    path.write_bytes(codec.to_json(SessionRecord(identity, 0, chain), "trainerd.session/1"))


def test_how_a_session_was_started_is_known_and_whether_a_command_is_above_it(run):
    command, session = ProcessIdentity(12, 1, "b"), ProcessIdentity(14, 2, "b")
    records.write(run.attempt(3).ranks, RanksRecord((command,)))
    registered(run, command, "python train.py (pid 12)")
    found = gather(run)
    assert (found.has_session, found.is_wrapped) == (True, False)
    registered(run, session, "bash run.sh (pid 12)", "python train.py (pid 14)")
    found = gather(run)
    assert found.is_wrapped
    assert found.chains[1] == "rank 0 trained in bash run.sh (pid 12) > python train.py (pid 14)"


def test_without_a_record_of_the_ranks_the_chain_says_whether_a_command_is_above(run):
    registered(run, ProcessIdentity(14, 2, "b"), "bash run.sh (pid 12)", "python train.py (pid 14)")
    assert gather(run).is_wrapped


def test_secrets_are_hidden_in_chains(run, tmp_path):
    secrets = tmp_path / "secrets"
    secrets.write_text("KEY=very-secret\n")
    secrets.chmod(0o600)
    registered(run, ProcessIdentity(14, 2, "b"), "python very-secret (pid 14)")
    assert gather(run, job=spec(env_file=str(secrets))).chains == (
        f"rank 0 trained in python {HIDDEN} (pid 14)",
    )


@pytest.mark.parametrize(("number", "expected"), [(1, True), (2, True), (3, False), (4, False)])
def test_a_session_of_an_earlier_attempt_shows_that_the_run_has_trained(run, number, expected):
    paths = run.attempt(number)
    paths.root.mkdir(exist_ok=True)
    register_session(paths, rank=0, shim_pid=None)
    assert gather(run).has_trained_before is expected
