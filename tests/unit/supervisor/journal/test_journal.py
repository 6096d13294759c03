"""The journal: durable, whole or refused, never silently empty."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.supervisor_objects import NOW, STATE_SAMPLES, job, outcome, spec
from trainerd.errors import CorruptError, LockedError, UserError
from trainerd.supervisor.journal.job_codec import JOB_FORMAT
from trainerd.supervisor.journal.journal import EndingRow, Entry, Journal
from trainerd.supervisor.journal.journal_schema import SCHEMA_VERSION
from trainerd.supervisor.machine.states import (
    Draining,
    DrainReason,
    Faulted,
    FileMark,
    Queued,
    Rejected,
    Running,
)

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def journal(tmp_path):
    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as journal:
        yield journal


def entry(subject, name="ant", **fields):
    return Entry(name, subject, "job.test", "because", **fields)


@pytest.mark.parametrize(
    "state",
    [
        *STATE_SAMPLES.values(),
        Running(gpus=(1, 2), has_progressed=True),
        Draining(DrainReason.REMOVED, (3,), has_progressed=True, is_signalled=True),
        Rejected("program", (FileMark("/train.py", 7, 8),)),
    ],
    ids=lambda state: state.NAME,
)
def test_a_job_comes_back_as_it_was(tmp_path, state):
    path = tmp_path / "journal.sqlite3"
    subject = job(state, refusal="no", spec=spec("v7", env={"A": "b"}, python="/usr/bin/python3"))
    with contextlib.closing(Journal(path)) as journal:
        journal.commit([entry(subject)], wall_s=NOW)
    with contextlib.closing(Journal(path)) as journal:
        assert journal.jobs() == {"ant": subject}


def test_a_job_that_is_forgotten_is_gone_and_its_history_stays(journal):
    journal.commit([entry(job(Queued()))], wall_s=NOW)
    journal.commit([entry(None)], wall_s=NOW + 1)
    assert journal.jobs() == {}
    assert len(journal.events(job="ant")) == 2


def test_decisions_are_recorded_all_or_none(journal):
    """The second entry cannot be encoded, so the first is not recorded either."""
    with pytest.raises(TypeError):
        journal.commit([entry(job(Queued())), entry(job(Queued()), data={"no": object()})], wall_s=NOW)
    assert journal.jobs() == {}
    assert journal.events() == ()


def test_endings_are_kept_in_order_with_what_was_done(journal):
    endings = [EndingRow(n, outcome(step=n, evidence=("a", "b")), f"action {n}") for n in (1, 2, 3)]
    for ending in endings:
        subject = job(Queued(), attempt=ending.attempt)
        journal.commit([entry(subject, attempt_started=ending.attempt)], wall_s=NOW)
        journal.commit([entry(subject, ending=ending)], wall_s=NOW)
    assert journal.endings("ant") == tuple(endings)
    assert journal.endings("ant", attempt=2) == (endings[1],)
    assert journal.last_endings() == {"ant": endings[2]}


def test_events_are_numbered_and_can_be_followed(journal):
    for name in ("ant", "bee", "ant"):
        journal.commit([entry(job(Queued(), name=name), name)], wall_s=NOW)
    assert [row.sequence for row in journal.events()] == [1, 2, 3]
    assert [row.sequence for row in journal.events(after=1, limit=1)] == [2]
    assert [row.sequence for row in journal.events(after=1, limit=1, is_newest=True)] == [3]
    assert [row.sequence for row in journal.events(limit=2, is_newest=True)] == [2, 3]
    assert [row.job for row in journal.events(job="ant")] == ["ant", "ant"]


def test_a_decision_survives_the_death_of_its_process(tmp_path):
    """Committed means durable, not buffered: SIGKILL right after the commit."""
    path = tmp_path / "journal.sqlite3"
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from tests.support.supervisor_objects import *\n"
        "from trainerd.supervisor.journal.journal import Entry, Journal\n"
        "from trainerd.supervisor.machine.states import Queued\n"
        "Journal(__import__('pathlib').Path(sys.argv[1]))"
        ".commit([Entry('ant', job(Queued()), 'job.test', 'x')], wall_s=NOW)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(path), str(Path(__file__).parents[4])], check=False
    )
    assert ended.returncode == -9
    with contextlib.closing(Journal(path)) as journal:
        assert journal.jobs() == {"ant": job(Queued())}


def test_every_commit_is_synced(journal):
    """WAL with synchronous=FULL: one fsync a commit, and a power cut keeps it."""
    assert journal._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._database.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_journal_of_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "journal.sqlite3"
    Journal(path).close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE schema SET version = ?", (SCHEMA_VERSION + 1,))
        database.commit()
    with pytest.raises(UserError, match=f"schema {SCHEMA_VERSION + 1}"):
        Journal(path)


@pytest.mark.parametrize(
    "content", [b"this is no database at all" * 200, b"SQLite format 3\x00" + b"\xff" * 9000]
)
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "journal.sqlite3"
    path.write_bytes(content)
    with pytest.raises(CorruptError, match="move it aside"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_refused(tmp_path):
    path = tmp_path / "journal.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(CorruptError, match="recipes"):
        Journal(path)


def test_a_job_of_a_format_of_the_future_is_refused_by_name(tmp_path):
    path = tmp_path / "journal.sqlite3"
    with contextlib.closing(Journal(path)) as journal:
        journal.commit([entry(job(Queued()))], wall_s=NOW)
        journal._database.execute(
            "UPDATE jobs SET record = replace(record, 'journal-job/1', 'journal-job/2')"
        )
        with pytest.raises(CorruptError, match="job ant"):
            journal.jobs()


def test_a_journal_locked_by_another_program_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("trainerd.supervisor.journal.journal._BUSY_TIMEOUT_S", 0.01)
    path = tmp_path / "journal.sqlite3"
    with contextlib.closing(Journal(path)) as journal, contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LockedError, match="locked"):
            journal.commit([entry(job(Queued()))], wall_s=NOW)


def test_a_journal_of_schema_1_can_be_read_for_ever(tmp_path):
    """Written by the first trainerd that had one, and kept."""
    path = tmp_path / "journal.sqlite3"
    shutil.copy(FIXTURES / "journal-schema-1.sqlite3", path)
    with contextlib.closing(Journal(path)) as journal:
        found = journal.jobs()
        assert {name: one.state.NAME for name, one in found.items()} == {
            state.NAME: state.NAME for state in STATE_SAMPLES if state is not Faulted
        }
        assert found["draining"].state == STATE_SAMPLES[Draining]
        assert journal.last_endings()["running"].outcome.kind.value == "crashed"
        assert len(journal.events()) == len(found) + 1


DAMAGED_ROWS = {
    "not JSON": b"no",
    "not UTF-8": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "no state": b'{"format": "FORMAT"}',
    "odd state": b'{"format": "FORMAT", "state": {"name": []}}',
    "huge": b'{"format": "FORMAT", "state": {"name": "queued"}, "attempt": 1%s}' % (b"0" * 5000),
}


@pytest.mark.parametrize("record", DAMAGED_ROWS.values(), ids=DAMAGED_ROWS)
def test_a_damaged_row_is_set_aside_and_the_other_jobs_stay(tmp_path, record):
    path = tmp_path / "journal.sqlite3"
    with contextlib.closing(Journal(path)) as journal:
        journal.commit([entry(job(Queued())), entry(job(Queued(), name="bee"), "bee")], wall_s=NOW)
    data = record.replace(b"FORMAT", JOB_FORMAT.encode())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE jobs SET record = CAST(? AS TEXT) WHERE name = 'ant'", (data,))
    with contextlib.closing(Journal(path)) as journal:
        assert list(journal.jobs()) == ["bee"]
        assert journal.events(job="ant")[-1].kind == "job.row-damaged"
    with contextlib.closing(Journal(path)) as journal:
        assert list(journal.jobs()) == ["bee"]


def test_damaged_history_is_left_out(tmp_path):
    path = tmp_path / "journal.sqlite3"
    with contextlib.closing(Journal(path)) as journal:
        ending = EndingRow(1, outcome(), "none")
        journal.commit([entry(job(Queued()), ending=ending)], wall_s=NOW)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE attempts SET outcome = '{'")
        database.execute("UPDATE events SET data = '['")
    with contextlib.closing(Journal(path)) as journal:
        assert (journal.endings("ant"), journal.last_endings()) == ((), {})
        assert journal.events()[0].data == {}


def test_texts_that_cannot_be_encoded_are_recorded_all_the_same(journal):
    """An exception whose message holds a file name that is not UTF-8."""
    odd = "cannot decode img\udcff.png\x1b[2J"
    subject = job(Queued(), name="ant")
    subject = dataclasses.replace(subject, reason=odd, refusal=odd)
    ending = EndingRow(3, outcome(evidence=(odd,)), odd)
    journal.commit([Entry("ant", subject, "job.test", odd, {"why": odd}, ending=ending)], wall_s=NOW)
    assert journal.events()[0].message == "cannot decode img\\xff.png\\x1b[2J"
    assert journal.endings("ant")[0].outcome.evidence == ("cannot decode img\\xff.png\\x1b[2J",)
    assert journal.jobs()["ant"] == subject
