"""With no supervisor, verbs read the journal and the run folders, and change nothing there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket

import pytest
from click.testing import CliRunner

from tests.support.checkpoints import commit
from tests.support.supervisor_objects import BOOT, NOW, job, outcome
from trainerd.checkpoint.store import CheckpointStore
from trainerd.cli.main import group
from trainerd.contract import records
from trainerd.contract.paths import StatePaths
from trainerd.contract.process import identify
from trainerd.contract.records import ExitRecord, FinishedRecord, RankExit, ShimRecord
from trainerd.contract.session_record import register_session
from trainerd.supervisor.journal.journal import EndingRow, Entry, Journal
from trainerd.supervisor.machine.states import BackingOff, Finished, Running


def entry(name, state, reason, **more):
    subject = dataclasses.replace(job(state), name=name, reason=reason, attempt=2)
    return Entry(name, subject, f"job.{state.NAME}", reason, **more)


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A state folder whose supervisor was killed: what it wrote last is in the log of its database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRAINERD_STATE", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    paths = StatePaths(tmp_path / ".trainerd")
    paths.root.mkdir()
    for name in ("alive", "dead"):
        paths.run(name).attempt(2).root.mkdir(parents=True)
    ending = EndingRow(1, outcome(step=7), "run again")
    with contextlib.closing(Journal(paths.journal)) as journal:
        journal.commit(
            [
                entry("alive", Running(), "making progress"),
                entry("dead", Running(), "making progress", ending=ending),
                entry("waits", BackingOff(5.0, NOW + 5.0), "crashed"),
                entry("done", Finished("v1"), "complete"),
            ],
            wall_s=NOW,
        )
        shim = ShimRecord(identify(os.getpid()), NOW)
        records.write(paths.run("alive").attempt(2).shim, shim)
        ended = ExitRecord((RankExit(0, exit_code=85),), NOW, NOW + 1, 1.0, BOOT)
        records.write(paths.run("dead").attempt(2).exit, ended)
        store = CheckpointStore.of_run(paths.run("dead"))
        with store.lock():
            commit(store, 40)
        assert paths.journal.with_name("journal.sqlite3-wal").stat().st_size
        yield paths


def said(*words, code=0):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(group, words)
    assert result.exit_code == code, result.output
    return result


def listing(paths):
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(paths.root.rglob("*"))
    }


def test_ps_shows_what_is_left_and_says_which_jobs_go_on(state):
    before = listing(state)
    result = said("ps")
    rows = {line.split()[0]: line for line in result.stdout.splitlines()[1:]}
    assert {name: row.split()[1] for name, row in rows.items()} == {
        "alive": "running",
        "dead": "ended",
        "waits": "backing-off",
        "done": "finished",
    }
    assert "attempt 2 runs without a supervisor" in rows["alive"]
    assert "attempt 2 has ended (rank 0 exited with 85)" in rows["dead"]
    assert " 40 " in rows["dead"]
    assert "next attempt in" not in rows["waits"]  # no supervisor would start it
    assert result.stderr.startswith("no supervisor is running on .trainerd; these go on without it: alive\n")
    assert listing(state) == before


def test_explain_events_and_status_read_the_journal(state):
    assert [each["attempt"] for each in json.loads(said("explain", "dead", "--json").stdout)] == [1]
    kinds = [each["kind"] for each in json.loads(said("events", "--json").stdout)]
    assert kinds == ["job.running", "job.running", "job.backing-off", "job.finished"]
    assert said("events", "--job", "done").stdout.count("\n") == 1
    assert "dead: ended" in said("status", "dead", code=17).stdout
    assert "alive: running" in said("status", "alive", code=18).stdout
    said("status", "done")
    said("status", "waits", code=11)
    assert "4 jobs" not in said("status", code=1).stdout
    assert "did you mean 'dead'?" in said("status", "daed", code=1).stderr
    assert "did you mean 'dead'?" in said("events", "--job", "daed", code=1).stderr


@pytest.mark.parametrize("verb", ["logs", "metrics", "goodput"])
def test_verbs_that_need_no_supervisor_say_when_a_job_goes_on_without_one(state, verb):
    for name in ("alive", "dead"):
        state.run(name).rank_log(0).parent.mkdir(parents=True)
        state.run(name).rank_log(0).write_bytes(b"one\n")
    begin = "no supervisor is running on .trainerd; "
    assert said(verb, "alive").stderr == f"{begin}alive goes on without it\n"
    assert begin not in said(verb, "dead").stderr
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(".trainerd/trainerd.sock")
        listening.listen()
        assert "supervisor" not in said(verb, "alive").stderr


def test_when_nothing_runs_that_is_said(state):
    (state.run("alive").attempt(2).shim).unlink()
    (state.run("alive").attempt(2).launch).write_text("not a record")
    assert "; cannot tell whether these run: alive\n" in said("ps").stderr
    records.write(
        state.run("alive").attempt(2).exit, ExitRecord((RankExit(0, exit_code=0),), NOW, NOW, 0.0, BOOT)
    )
    assert said("ps").stderr.startswith("no supervisor is running on .trainerd; no job runs\n")


def test_how_each_rank_ended_is_said(state):
    ranks = (RankExit(0, signal=9), RankExit(1, spawn_error="no such file"))
    records.write(state.run("dead").attempt(2).exit, ExitRecord(ranks, NOW, NOW + 1, 1.0, BOOT))
    reason = "attempt 2 has ended (rank 0 was ended by SIGKILL, rank 1 was not started);"
    assert reason in said("ps").stdout


def test_jobs_of_exec_are_found_in_the_same_folder_and_from_below(state, tmp_path, monkeypatch):
    inner = StatePaths(state.root / "exec" / "ant")
    inner.run("ant").root.mkdir(parents=True)
    with contextlib.closing(Journal(inner.journal)) as journal:
        journal.commit([entry("ant", Finished("v1"), "complete")], wall_s=NOW + 9)
    (tmp_path / "deep" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "below")
    assert said("ps", "-q").stdout.split() == ["alive", "ant", "dead", "done", "waits"]
    assert json.loads(said("events", "--json").stdout)[-1]["job"] == "ant"


def test_without_a_journal_the_run_folders_speak(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = StatePaths(tmp_path / ".trainerd")
    paths.run("bare").root.mkdir(parents=True)
    records.write(paths.run("bare").finished, FinishedRecord(9, 1, "step-000000009", "", NOW))
    assert "finished at step 9" in said("ps").stdout
    assert said("explain", "bare").stdout == (
        "bare: finished at step 9; how its attempts ended is not on record\n"
    )


def test_a_finished_run_that_runs_again_is_not_shown_as_finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = StatePaths(tmp_path / ".trainerd").run("bare")
    paths = run.attempt(2)
    paths.root.mkdir(parents=True)
    records.write(run.finished, FinishedRecord(9, 1, "step-000000009", "", NOW))
    register_session(paths, rank=0, shim_pid=None)  # of this process, which lives
    shown = json.loads(said("ps", "--json").stdout)
    assert [each["state"] for each in shown] == ["running"]


def test_a_damaged_journal_is_named_by_its_own_path(state):
    state.journal.with_name("journal.sqlite3-wal").unlink()
    state.journal.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    error = said("ps", code=1).stderr
    assert "journal.sqlite3: the journal is damaged" in error
    assert "trainerd-journal-" not in error
