"""A state folder that another process has: waited for, taken over from another machine, or left alone."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import signal

import pytest

from trainerd.checkpoint.checkpoint_names import LOCK_NAME
from trainerd.checkpoint.lock import is_locked_elsewhere, writers_lock
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import records
from trainerd.contract.paths import StatePaths
from trainerd.contract.process import identify
from trainerd.contract.records import ExitRecord, RankExit, ShimRecord
from trainerd.contract.signals import STOP
from trainerd.errors import FencedError, LockedError
from trainerd.supervisor.attempt.run_files import DiskRunFiles
from trainerd.supervisor.purge import refuse_if_live
from trainerd.supervisor.service import takeover
from trainerd.supervisor.service.instance_lock import instance_lock, is_replaced
from trainerd.supervisor.service.takeover import (
    AskedToLeaveError,
    exclusive_state,
    lock_holder,
    usual_wait_s,
)


@pytest.fixture
def state(tmp_path):
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    yield StatePaths(tmp_path)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.fixture
def myself():
    return identify(os.getpid())


def on_n1(identity):
    return dataclasses.replace(identity, boot_id="another", host="n1")


class Taking:
    """Takes a state folder, and keeps what is said."""

    def __init__(self, state: StatePaths) -> None:
        self.state = state
        self.said: list[str] = []

    def __call__(self, after_s: float | None):
        return exclusive_state(
            self.state, self.state.run("job"), takeover_after_s=after_s, say=self.said.append
        )


@pytest.fixture
def take(state):
    return Taking(state)


def held_by_n1(monkeypatch, myself, state):
    """Return the lock as a process on another machine holds it."""
    monkeypatch.setattr(takeover, "identify", lambda _pid: on_n1(myself))
    return Taking(state)(None)


@pytest.mark.parametrize("after_s", [None, 0.01])
def test_a_holder_on_this_machine_is_never_taken_over_from(state, take, after_s):
    with instance_lock(state.lock) as held:
        with pytest.raises(LockedError), take(after_s):
            pass
        assert not is_replaced(held, state.lock)


def test_a_holder_that_leaves_in_time_is_waited_for(state, take, monkeypatch):
    holder = instance_lock(state.lock)
    holder.__enter__()
    monkeypatch.setattr(signal, "sigtimedwait", lambda *_args: holder.__exit__(None, None, None) or None)
    with take(60.0):
        pass
    assert "it is waited for" in take.said[0]


def test_a_request_to_stop_ends_the_wait(state, take):
    signal.raise_signal(signal.SIGTERM)
    with instance_lock(state.lock), pytest.raises(AskedToLeaveError, match="nothing was started"), take(60.0):
        pass


def test_a_holder_on_another_machine_is_taken_over_from_after_the_wait_alone(
    state, take, monkeypatch, myself
):
    with held_by_n1(monkeypatch, myself, state) as held:
        monkeypatch.undo()
        state.journal.write_text("n1's")
        with pytest.raises(LockedError), take(None):
            pass
        with take(0.01) as lock:
            assert lock_holder(state) == myself
            assert is_replaced(held, state.lock)
            assert not is_replaced(lock, state.lock)
            assert not state.journal.exists()
    assert [path.read_text() for path in state.root.glob("journal*")] == ["n1's"]
    assert any("on n1" in sentence and "takes over" in sentence for sentence in take.said)
    assert any("kept as journal.sqlite3.old-1" in sentence for sentence in take.said)


def test_one_on_another_machine_that_left_in_order_leaves_its_journal(state, take, monkeypatch, myself):
    with held_by_n1(monkeypatch, myself, state):
        pass
    state.journal.write_text("of all")
    with take(None):
        assert state.journal.read_text() == "of all"
    assert take.said == []


def test_an_unreleased_folder_without_common_locks_gets_a_journal_of_its_own(
    state, take, monkeypatch, myself
):
    with held_by_n1(monkeypatch, myself, state):
        monkeypatch.undo()
        monkeypatch.setattr(fcntl, "flock", lambda *_args: None)
        state.journal.write_text("n1's")
        with take(None):
            assert not state.journal.exists()


def test_a_supervisor_that_holds_the_folder_is_not_taken_for_an_exec_before_it(
    state, take, monkeypatch, myself
):
    with held_by_n1(monkeypatch, dataclasses.replace(myself, pid=1), state):
        left = state.holder.read_bytes()
    state.holder.write_bytes(left)
    with instance_lock(state.lock), pytest.raises(LockedError), take(0.01):
        pass


def attempt_on_n1(state, myself):
    run = state.run("job")
    paths = run.attempt(3)
    paths.root.mkdir(parents=True)
    records.write(paths.shim, ShimRecord(on_n1(myself), 1.0))
    return run


def test_an_attempt_on_another_machine_is_waited_for_until_it_has_ended(state, take, monkeypatch, myself):
    run = attempt_on_n1(state, myself)

    def ends(*_args):
        records.write(run.attempt(3).exit, ExitRecord((RankExit(0, exit_code=85),), 1.0, 2.0, 1.0, "b"))

    monkeypatch.setattr(signal, "sigtimedwait", ends)
    with take(60.0):
        assert "on n1 may still run this job" in take.said[0]


def test_an_attempt_on_another_machine_may_live_and_its_run_is_not_deleted(state, myself):
    run = attempt_on_n1(state, myself)
    assert DiskRunFiles().newest_attempt(run) == (3, True)
    with pytest.raises(LockedError, match="may still run on n1"):
        refuse_if_live(run)


def test_a_fence_stops_the_attempt_of_another_machine_and_drops_its_lock(state, monkeypatch, myself):
    run = attempt_on_n1(state, myself)
    store = CheckpointStore.of_run(run)
    monkeypatch.setattr("trainerd.checkpoint.lock.boot_id", lambda: "another")
    with store.lock():
        store.take_over()
        monkeypatch.undo()
        DiskRunFiles().fence(run)
        assert not (run.checkpoints / LOCK_NAME).exists()
        with pytest.raises(FencedError):
            store.begin(1)


def test_a_fence_leaves_the_lock_of_a_process_of_this_machine(state, myself):
    run = attempt_on_n1(state, myself)
    with writers_lock(run.checkpoints):
        DiskRunFiles().fence(run)
        assert not is_locked_elsewhere(run.checkpoints)
        assert (run.checkpoints / LOCK_NAME).exists()


def test_it_waits_by_itself_only_where_an_engine_restarts_jobs():
    assert usual_wait_s({"PATH": "/bin"}) is None
    assert usual_wait_s({"SLURM_JOB_ID": "7"}) == 60.0
    assert usual_wait_s({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == 60.0
