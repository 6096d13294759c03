"""What the ledger is computed from: the journal and the run folder, with and without a supervisor."""

import contextlib
from dataclasses import replace

import pytest

from tests.support.supervisor_objects import job, outcome
from trainerd.contract import records
from trainerd.contract.heartbeat import HeartbeatWriter, Phase
from trainerd.contract.paths import StatePaths
from trainerd.contract.records import ExitRecord, OutcomeRecord, RankExit
from trainerd.supervisor.goodput.goodput_facts import read_facts
from trainerd.supervisor.journal.journal import EndingRow, Entry, Journal
from trainerd.supervisor.machine.states import BackingOff, Running, Starting

T0 = 1_800_000_000.0


@pytest.fixture
def paths(tmp_path):
    return StatePaths(tmp_path)


def told(attempt, *, step=5, opened_s=2.0, at_s=0.0, furthest_step=0, monkeypatch):
    """Leave the page of a rank that opened its session, and did a step each second."""
    attempt.root.mkdir(parents=True)
    now_s = iter(range(1000))
    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic_ns", lambda: next(now_s) * 10**9)
        patch.setattr("time.time", lambda: T0 + at_s + opened_s)
        writer = HeartbeatWriter(attempt.heartbeat(0), furthest_step=furthest_step)
        for done in range(step + 1):
            writer.beat(
                Phase.STEP,
                step=done,
                epoch=0,
                epochs=-1,
                batch=done,
                batches=-1,
                checkpoint_step=-1,
                loss=0.5,
                saves=0,
                resumed_step=0,
            )
        writer.close()


def test_journal_and_pages_make_one_ledger(paths, monkeypatch):
    with contextlib.closing(Journal(paths.journal)) as journal:
        launched = Entry("ant", job(Starting(), attempt=1), "job.starting", "", {"state": "starting"}, 1)
        journal.commit([launched], wall_s=T0)
        ended = EndingRow(1, replace(outcome(), ended_wall_s=T0 + 20), "again")
        died = Entry("ant", job(BackingOff(5, T0 + 26)), "job.backing-off", "", {"state": "backing-off"})
        journal.commit([replace(died, ending=ended)], wall_s=T0 + 21)
        told(paths.run("ant").attempt(1), monkeypatch=monkeypatch)
        facts = read_facts(paths, "ant")  # beside the writer
    kind = outcome().kind.value
    assert facts.endings == {kind: 1}
    assert read_facts(paths, "ant") == facts, "and without it"
    goodput = facts.goodput(T0 + 30)
    assert goodput.wall_s == 30
    assert {bucket: spent for bucket, spent in goodput.buckets.items() if spent} == {
        "starting": 2,
        "loading": 2,
        "useful": 4,
        "down": 22,
    }


def test_attempts_of_a_run_that_was_moved_aside_do_not_count(paths, monkeypatch):
    with contextlib.closing(Journal(paths.journal)) as journal:
        for number, at_s in ((1, 0.0), (2, 100.0)):
            entry = Entry(
                "ant", job(Running(), attempt=number), "job.starting", "", {"state": "starting"}, number
            )
            journal.commit([entry], wall_s=T0 + at_s)
            ended = EndingRow(number, replace(outcome(), ended_wall_s=T0 + at_s + 10), "")
            done = Entry("ant", job(BackingOff(5, T0)), "x", "", {"state": "queued"}, ending=ended)
            journal.commit([done], wall_s=T0 + at_s + 10)
    told(paths.run("ant").attempt(2), at_s=100.0, monkeypatch=monkeypatch)
    facts = read_facts(paths, "ant")
    assert [each.attempt for each in facts.attempts] == [2]
    assert facts.goodput(T0 + 110).wall_s == 10


def test_a_run_without_a_supervisor_has_a_ledger_too(paths, monkeypatch):
    first, second = (paths.run("ant").attempt(number) for number in (1, 2))
    told(first, monkeypatch=monkeypatch)
    records.write(first.outcome(0), OutcomeRecord("drained", step=5))
    told(second, step=9, at_s=60.0, furthest_step=5, monkeypatch=monkeypatch)
    records.write(second.exit, ExitRecord((RankExit(0, exit_code=1),), T0 + 60, T0 + 75, 15.0, boot_id="b"))
    facts = read_facts(paths, "ant")
    assert facts.endings == {"drained": 1, "crashed": 1}
    goodput = facts.goodput(T0 + 75)
    assert {bucket: spent for bucket, spent in goodput.buckets.items() if spent} == {
        "starting": 2,
        "loading": 4,
        "useful": 8,
        "repeated": 4,
        "waiting": 52,
        "down": 3,
    }


@pytest.mark.parametrize("damage", ["nothing", "garbage", "directory", "fifo"])
def test_what_cannot_be_read_is_left_out(paths, damage):
    attempt = paths.run("ant").attempt(1)
    attempt.root.mkdir(parents=True)
    if damage == "garbage":
        for path in (paths.journal, attempt.exit, attempt.shim, attempt.heartbeat(0), attempt.outcome(0)):
            path.write_bytes(b"\xff{" * 3000)
    elif damage == "directory":
        for path in (paths.journal, attempt.exit, attempt.heartbeat(0)):
            path.mkdir()
    elif damage == "fifo":
        import os

        os.mkfifo(attempt.heartbeat(0))
        os.mkfifo(attempt.exit)
    assert read_facts(paths, "ant").goodput(T0).wall_s == 0


def test_what_is_there_and_cannot_be_read_is_listed(paths, monkeypatch):
    run = paths.run("ant")
    told(run.attempt(1), monkeypatch=monkeypatch)
    run.attempt(2).root.mkdir()
    assert read_facts(paths, "ant").unread == (), "what is not there is not unread"
    for path in (run.attempt(2).heartbeat(0), run.attempt(2).exit):
        path.symlink_to(path.name)
    unread = read_facts(paths, "ant").unread
    assert [(each.path, each.attempt) for each in unread] == [
        (run.attempt(2).heartbeat(0), 2),
        (run.attempt(2).exit, 2),
    ]
    assert "symbolic links" in unread[0].why
    paths.journal.symlink_to(paths.journal.name)
    assert read_facts(paths, "ant").unread[0].path == paths.journal
