"""The few moments of an attempt that a real process would meet only once in a thousand runs."""

from __future__ import annotations

import os
import resource
import signal

import pytest

from trainerd.contract.clock import SystemClock
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.process import ProcessIdentity, identify
from trainerd.contract.records import LaunchRecord
from trainerd.shim.attempt import RankGroup
from trainerd.shim.entry import Admission

PIDS = {100_001: 0, 100_002: 1}


@pytest.fixture
def attempt(tmp_path):
    logs = tuple(str(tmp_path / f"{rank}.log") for rank in range(2))
    launch = LaunchRecord("job", 1, ("true",), "/", {}, 2, 1.0, logs)
    admission = Admission(launch, identify(os.getpid()), 0.0, 0.0)
    attempt = RankGroup(AttemptPaths(tmp_path), admission, SystemClock(), ready_descriptor=None)
    for pid, rank in PIDS.items():
        attempt._processes.started(rank, ProcessIdentity(pid, 1, "boot"))
    yield attempt
    for log in attempt._logs:
        log.close()


@pytest.fixture
def sent(monkeypatch):
    sent = []
    monkeypatch.setattr(os, "kill", lambda pid, signum: sent.append((pid, signum)))
    return sent


def test_a_rank_that_was_collected_is_not_signalled_since_its_pid_may_be_a_strangers(attempt, sent):
    attempt._processes.collected(100_001)
    attempt._processes.forward(signal.SIGTERM, frozenset({0, 1}))
    assert sent == [(100_002, signal.SIGTERM)]


@pytest.mark.parametrize(
    ("status", "expected"),
    [(85 << 8, None), (signal.SIGSEGV, None), (signal.SIGKILL, "grace")],
)
def test_only_a_rank_that_the_kill_ended_was_killed_by_the_shim(attempt, sent, monkeypatch, status, expected):
    """One may leave by itself between the decision to kill it and the kill."""
    attempt._killed[0] = "grace"
    usage = resource.getrusage(resource.RUSAGE_SELF)
    endings = iter([(100_001, int(status), usage), (0, 0, usage)])
    monkeypatch.setattr(os, "wait4", lambda *_: next(endings))
    assert attempt._reap(), "another child is left"
    assert attempt._exits[0].killed_by_shim == expected


def test_a_rank_that_a_real_time_signal_ended_is_recorded(attempt, monkeypatch):
    usage = resource.getrusage(resource.RUSAGE_SELF)
    number = int(signal.SIGRTMIN) + 1
    endings = iter([(100_001, number, usage), (0, 0, usage)])
    monkeypatch.setattr(os, "wait4", lambda *_: next(endings))
    attempt._reap()
    assert attempt._exits[0].signal == number
