"""What the foreground exits with."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import threading
import types
from pathlib import Path

import pytest

from tests.support.supervisor_objects import NOW, job
from trainerd.contract.paths import StatePaths
from trainerd.supervisor.api.control import OutcomeView
from trainerd.supervisor.bounded_io import BoundedIo, NotObservedError
from trainerd.supervisor.machine.states import Draining, Finished, Parked, Paused, Queued, Rejected, Stopped
from trainerd.supervisor.service import foreground, service
from trainerd.supervisor.service.foreground import judge_end
from trainerd.supervisor.service.instance_lock import instance_lock, is_replaced
from trainerd.supervisor.service.shutdown import Leaving
from trainerd.supervisor.service.stop_requests import StopRequests

SAVED = OutcomeView(3, "killed", "it did", checkpoint="step-000000100")
DRAINED = OutcomeView(3, "drained", "it did")
NOTHING = OutcomeView(3, "stopped", "it did")
KILLED = OutcomeView(3, "killed", "it did not leave within the grace period")
CRASHED = OutcomeView(3, "crashed", "it did")


@pytest.mark.parametrize(
    ("state", "outcome", "code"),
    [
        (Finished("v1"), None, 0),
        (Rejected("program"), NOTHING, 93),
        (Rejected("spec"), None, 93),
        (Parked(), SAVED, 1),
        (Draining(), SAVED, 85),
        (Draining(), None, 85),
        (Queued(), SAVED, 85),
        (Queued(), DRAINED, 85),
        (Stopped(), SAVED, 85),
        (Paused(1.0, NOW), SAVED, 85),
        (Queued(), NOTHING, 85),
        (Queued(), CRASHED, 1),
        (Queued(), dataclasses.replace(CRASHED, checkpoint="step-000000100"), 85),
        (Queued(), KILLED, 85),
        (Queued(), None, 85),
    ],
    ids=lambda value: getattr(value, "NAME", None) or getattr(value, "kind", None) or str(value),
)
def test_the_exit_code_says_whether_to_run_it_again(state, outcome, code):
    """85 where there is something to go on from, or where it was asked to leave before there was."""
    assert judge_end(job(state), outcome, was_asked=True).code == code


def test_a_job_that_is_gone_is_a_failure():
    assert judge_end(None, None, was_asked=False).code == 1


def test_a_second_request_that_is_heard_twice_is_no_third(monkeypatch):
    """The third one kills without a save."""
    now_s = [0.0]
    monkeypatch.setattr(
        foreground, "SystemClock", lambda: types.SimpleNamespace(monotonic_s=lambda: now_s[0])
    )
    hurried = []
    asked = types.SimpleNamespace(_requests=StopRequests(), _is_over=threading.Event())
    asked._hurry = lambda: hurried.append(asked._requests.count)
    for now_s[0] in (10.0, 10.1, 13.0, 13.1, 14.9, 15.0):
        foreground._Foreground._note_request(asked)
    assert hurried == [2, 3]


def test_a_second_request_to_a_supervisor_that_is_heard_twice_is_no_third(monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr(service, "SystemClock", lambda: types.SimpleNamespace(monotonic_s=lambda: now_s[0]))
    hurried = []
    asked = types.SimpleNamespace(_stop_requests=StopRequests(), _stop_asked=threading.Event())
    asked._leaving = types.SimpleNamespace(hurry=lambda: hurried.append(asked._stop_requests.count))
    for now_s[0] in (10.0, 10.1, 13.0, 13.1, 14.9, 15.0):
        service._Service._note_stop_request(asked)
    assert hurried == [2, 3]


def hurry_of_the_foreground(loop, count):
    asked = foreground._Foreground.__new__(foreground._Foreground)
    asked._loop, asked._requests = loop, StopRequests()
    asked._requests.count = count
    asked._hurry()


def hurry_of_the_supervisor(loop, count):
    leaving = Leaving(loop, None, None, types.SimpleNamespace(hurry=foreground.HURRY_KILL_S), None)
    leaving._requests = count - 1
    leaving.hurry()


@pytest.mark.parametrize("hurry", [hurry_of_the_foreground, hurry_of_the_supervisor])
@pytest.mark.parametrize(("count", "done"), [(2, ["hurry", "kill"]), (3, ["kill"])])
def test_a_second_request_hurries_and_kills_after_a_time_and_a_third_kills(monkeypatch, hurry, count, done):
    acts = []
    monitor = types.SimpleNamespace(hurry=lambda: acts.append("hurry"), kill=lambda: acts.append("kill"))

    async def run():
        monkeypatch.setattr(foreground, "HURRY_KILL_S", 0.0)
        hurry(types.SimpleNamespace(monitors={"ant": monitor}), count)
        assert acts == done[:1]
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert acts == done


def test_a_lock_that_cannot_be_seen_is_not_taken_over(monkeypatch, tmp_path):
    """What cannot be observed ends neither the watch nor the job."""
    lock = tmp_path / "trainerd.lock"
    watching = foreground._Foreground.__new__(foreground._Foreground)
    watching._is_taken_over, watching._is_over = False, asyncio.Event()
    watching._state, watching._io = StatePaths(tmp_path), BoundedIo()
    looks = iter([OSError(errno.EIO, "I/O error"), NotObservedError("it hangs")])

    def look(descriptor, path):
        for error in looks:
            raise error
        if not lock.exists():
            lock.write_text("another process's")
            return False
        return is_replaced(descriptor, path)

    monkeypatch.setattr(foreground, "is_replaced", look)
    monkeypatch.setattr(foreground, "LOCK_LOOK_S", 0.0)
    with instance_lock(lock) as watching._lock:
        lock.unlink()
        asyncio.run(asyncio.wait_for(watching._watch_lock(), 5.0))
    assert watching._is_taken_over
    assert watching._is_over.is_set()
    assert next(looks, None) is None


@pytest.mark.parametrize(
    ("fails", "code", "answer"),
    [("stat", errno.EIO, None), ("fstat", errno.EIO, None), ("fstat", errno.ESTALE, True)],
)
def test_a_lock_is_replaced_only_where_that_is_seen(monkeypatch, tmp_path, fails, code, answer):
    def fail(*_args, **_options):
        raise OSError(code, os.strerror(code))

    with instance_lock(tmp_path / "lock") as descriptor:
        monkeypatch.setattr(Path if fails == "stat" else os, fails, fail)
        if answer is None:
            with pytest.raises(OSError, match="error"):
                is_replaced(descriptor, tmp_path / "lock")
        else:
            assert is_replaced(descriptor, tmp_path / "lock")
        monkeypatch.undo()


def test_a_node_that_lost_the_others_while_it_was_asked_to_leave_is_run_again():
    lost = OutcomeView(3, "lost", "it did")
    assert judge_end(job(Stopped()), lost, was_asked=True, is_node=True).code == 85
    assert judge_end(job(Stopped()), lost, was_asked=True).code == 1
    assert judge_end(job(Parked()), lost, was_asked=True, is_node=True).code == 1
