"""A file of a run that this user may not read is named by the verbs that need it, not taken for absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.checkpoints import commit
from tests.support.other_user import NEIGHBOUR, as_user
from trainerd.checkpoint.store import CheckpointStore
from trainerd.cli.main import group
from trainerd.contract import codec, records
from trainerd.contract.heartbeat import HeartbeatWriter, Phase
from trainerd.contract.paths import StatePaths
from trainerd.contract.policy import RETENTION_FORMAT, RetentionPolicy
from trainerd.contract.records import ExitRecord, OutcomeRecord, RankExit

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root: becomes other users"),
]

T0 = 1_700_000_000.0


@pytest.fixture
def state():
    """A state folder that all users may read, with a run of one attempt."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="trainerd-unread-"))
    folder.chmod(0o755)
    state = StatePaths(folder)
    run = state.run("ant")
    attempt = run.attempt(1)
    attempt.root.mkdir(parents=True)
    writer = HeartbeatWriter(attempt.heartbeat(0), furthest_step=0)
    place = {"epoch": 0, "epochs": 1, "batch": 3, "batches": 4, "checkpoint_step": -1, "loss": 0.5}
    writer.beat(Phase.STEP, step=3, saves=0, resumed_step=0, **place)
    writer.close()
    records.write(attempt.exit, ExitRecord((RankExit(0, exit_code=1),), T0, T0 + 60, 60.0, boot_id="b"))
    run.rank_log(0).parent.mkdir()
    run.rank_log(0).write_text("hello\n")
    store = CheckpointStore.of_run(run)
    with store.lock():
        commit(store, 100)
    run.retention.write_bytes(codec.to_json(RetentionPolicy(), RETENTION_FORMAT))
    yield state
    shutil.rmtree(folder)


@pytest.fixture
def said(state):
    """Runs a verb as another user: `said("logs", "ant")` is its exit code and what it printed."""

    def run(verb: str, *words: str) -> tuple[int, str]:
        def invoked() -> tuple[int, str]:
            result = CliRunner().invoke(group, [verb, "--state-dir", str(state.root), *words])
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                return result.exit_code, f"TRACEBACK {type(result.exception).__name__}: {result.exception}"
            return result.exit_code, result.output

        invoked()  # another user may not be able to read modules that come late
        return as_user(NEIGHBOUR, invoked)

    return run


def close(path: Path) -> Path:
    path.chmod(0)
    return path


def test_goodput_names_the_page_that_may_not_be_read(state, said):
    assert "no session noted its times" not in said("goodput", "ant")[1]
    page = close(state.run("ant").attempt(1).heartbeat(0))
    code, shown = said("goodput", "ant")
    assert (code, "no session noted its times" in shown) == (1, False)
    assert f"incomplete: {page}: permission denied" in shown
    assert "run this as its owner" in shown
    code, shown = said("goodput", "ant", "--json")
    assert code == 1
    assert f'"unread": [\n    "{page}"\n  ]\n' in shown


def test_goodput_of_which_nothing_may_be_read_is_an_error(state, said):
    close(state.run("ant").attempts)
    code, shown = said("goodput", "ant")
    assert (code, shown.startswith(f"error: {state.run('ant').attempts}: permission denied")) == (1, True)


def test_goodput_without_the_journal_is_called_incomplete(state, said):
    state.journal.touch()
    close(state.journal)
    code, shown = said("goodput", "ant")
    assert (code, f"incomplete: {state.journal}: permission denied" in shown) == (1, True)


def test_status_shows_no_goodput_that_it_cannot_know(state, said):
    assert "useful of" in said("status", "ant")[1]
    page = close(state.run("ant").attempt(1).heartbeat(0))
    assert f"goodput     not known: {page}: permission denied" in said("status", "ant")[1]
    assert '"goodput": null' in said("status", "ant", "--json")[1]


@pytest.mark.parametrize("words", [(), ("--rank", "0"), ("--attempt", "1"), ("-f",), ("--json",)])
def test_logs_names_a_folder_that_may_not_be_read(state, said, words):
    folder = close(state.run("ant").rank_log(0).parent)
    code, shown = said("logs", "ant", *words)
    assert (code, shown.startswith(f"error: {folder}: permission denied")) == (1, True), shown


def test_logs_of_a_rank_are_shown_though_the_launch_may_not_be_read(state, said):
    launch = state.run("ant").attempt(1).launch
    launch.touch()
    close(launch)
    code, shown = said("logs", "ant", "--rank", "0")
    assert (code, shown.startswith("hello\n")) == (0, True), shown
    code, shown = said("logs", "ant", "--rank", "7")
    assert (code, shown.startswith(f"error: {launch}: permission denied")) == (1, True)


def test_an_attempt_is_not_said_to_be_absent_where_attempts_may_not_be_listed(state, said):
    close(state.run("ant").attempts)
    code, shown = said("logs", "ant", "--attempt", "1")
    assert (code, "permission denied" in shown, "no attempt" in shown) == (1, True, False)


def test_pin_names_the_folder_that_may_not_be_written_to(state, said):
    code, shown = said("pin", "ant", "100")
    folder = state.run("ant").checkpoints
    assert (code, shown.startswith(f"error: {folder}: permission denied")) == (1, True), shown


def test_prune_and_pin_name_a_checkpoint_that_may_not_be_read(state, said):
    (manifest,) = state.run("ant").checkpoints.glob("step-*/manifest.json")
    close(manifest)
    code, shown = said("prune", "ant", "--dry-run")
    assert (code, "no checkpoint that can be read" in shown, "unreadable, and kept" in shown) == (
        0,
        True,
        True,
    )
    assert "could not be read: Permission denied" in said("prune", "ant", "--dry-run", "--json")[1]
    code, shown = said("pin", "ant", "100")
    assert (code, "could not be read: Permission denied" in shown) == (1, True)


@pytest.mark.parametrize("which", ["outcome", "session"])
def test_the_end_of_a_run_by_hand_is_not_judged_from_what_may_not_be_read(state, said, which):
    attempt = state.run("ant").attempt(1)
    attempt.exit.unlink()
    (attempt.root / "session-7.json").write_text("{}")
    if which == "outcome":
        records.write(attempt.outcome(0), OutcomeRecord("finished", 9, "step-000000009"))
    path = close(attempt.outcome(0) if which == "outcome" else attempt.root / "session-7.json")
    for verb in (("ps", "--format", "{name} {reason}"), ("status", "ant")):
        shown = said(*verb)[1]
        assert "its process is gone" not in shown
        assert "attempt 1 may run" in shown or "permission denied" in shown, shown
    assert str(path) in said("status", "ant")[1]
    assert "its process is gone" not in said("explain", "ant")[1]


@pytest.mark.parametrize("closed", ["attempts", "attempts/000001"])
def test_a_run_that_may_not_be_read_does_not_hide_the_others(state, said, closed):
    shutil.copytree(state.run("ant").root, state.run("bee").root)
    folder = close(state.run("ant").root / closed)
    code, shown = said("ps", "--format", "{name} {state} {reason}")
    assert code == 0
    assert "cannot tell whether these run: ant" in shown
    ant, bee = shown.splitlines()[-2:]
    assert ant.startswith("ant unknown not known: ")
    assert str(folder) in ant
    assert ant.endswith("cannot be read: Permission denied")
    assert bee.startswith("bee ended ")
    assert "1 ended, 1 unknown" in said("status")[1]
    assert said("status", "bee")[0] == 17
    code, shown = said("status", "ant")
    assert (code, "permission denied" in shown) == (1, True)


@pytest.mark.parametrize("name", ["exit", "launch"])
def test_a_record_that_may_not_be_read_is_named_as_the_reason(state, said, name):
    record = getattr(state.run("ant").attempt(1), name)
    record.touch()
    close(record)
    if name == "launch":
        state.run("ant").attempt(1).exit.unlink()
    code, shown = said("status", "ant")
    assert (code, shown.startswith("error")) == (19, False), shown
    assert f"attempt 1 may run: {record} cannot be read: Permission denied" in shown


@pytest.mark.parametrize("closed", ["", "step-000000100", "step-000000100/manifest.json"])
def test_a_checkpoint_that_may_not_be_read_is_not_said_to_be_absent(state, said, closed):
    assert "checkpoint  step 100" in said("status", "ant")[1]
    close(state.run("ant").checkpoints / closed)
    shown = said("status", "ant")[1]
    assert f"checkpoint  not known: {state.run('ant').checkpoints} cannot be read" in shown
    assert "progress    step 3" in shown


CLOSED = ["attempts", "attempts/000001", "attempts/000001/exit.json", "attempts/000001/heartbeat-00000"]


@pytest.mark.parametrize("closed", [*CLOSED, "job.json", "finished.json"])
def test_a_verdict_rests_on_nothing_that_may_not_be_read(state, said, closed):
    assert said("verdict", "ant")[0] == 85
    path = state.run("ant").root / closed
    path.touch()
    close(path)
    code, shown = said("verdict", "ant")
    assert (code, shown.startswith(f"error: {path}: permission denied")) == (1, True), shown


def test_a_verdict_rests_on_no_node_that_may_not_be_read(state, said):
    run = state.run("ant")
    run.node_ends.mkdir()
    end = run.node_ends / "0.json"
    end.touch()
    close(end)
    code, shown = said("verdict", "ant")
    assert (code, shown.startswith(f"error: {end}: permission denied")) == (1, True), shown
