"""Requests to stop: none is lost, none is doubled, and the deadline is kept."""

from __future__ import annotations

import os
import signal
import time

import pytest
from shim_workbench import python, runs, wait_for

from trainerd.contract.process import is_stopped
from trainerd.contract.signals import SECOND_AFTER_S

TERM, INT, USR1 = int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIGUSR1)


def received(workbench):
    path = workbench.here / "received"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_a_rank_asked_to_stop_drains_within_the_grace_period(workbench, obedient):
    paths = workbench.launch(obedient, nproc=2)
    workbench.running(paths, ready=(0, 1))
    assert workbench.launcher.signal(paths, signal.SIGTERM)
    record = workbench.ended(paths)
    assert [rank.exit_code for rank in record.ranks] == [85, 85]
    assert 0 < record.stop_requested_s <= record.duration_s


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT], ids=["stop", "kill"])
def test_a_shim_that_was_stopped_is_continued_by_a_request(workbench, obedient, signum):
    """It could not pass the request on, and its ranks would train for ever."""
    paths = workbench.launch(obedient)
    shim = workbench.running(paths, ready=(0,)).shim
    os.kill(shim.pid, signal.SIGSTOP)
    wait_for(lambda: is_stopped(shim))
    assert workbench.launcher.signal(paths, signum)
    (rank,) = workbench.ended(paths).ranks
    assert (rank.exit_code, rank.killed_by_shim) == ((85, None) if signum == TERM else (None, "asked"))


def test_a_rank_still_there_at_the_deadline_is_killed(workbench, stubborn):
    paths = workbench.launch(stubborn, grace_s=0.3)
    workbench.running(paths, ready=(0,))
    workbench.launcher.signal(paths, signal.SIGTERM)
    record = workbench.ended(paths)
    assert (record.ranks[0].signal, record.ranks[0].killed_by_shim) == (signal.SIGKILL, "grace")
    assert 0.3 <= record.duration_s - record.stop_requested_s < 2


def test_a_rank_that_left_by_itself_before_the_kill_is_not_called_killed(workbench, obedient):
    paths = workbench.launch(obedient, grace_s=0.0)
    workbench.running(paths, ready=(0,))
    workbench.launcher.signal(paths, signal.SIGTERM)
    (rank,) = workbench.ended(paths).ranks
    assert (rank.exit_code, rank.killed_by_shim) in {(85, None), (None, "grace")}


def test_a_second_request_is_passed_on_and_so_is_its_kind(workbench, stubborn):
    paths = workbench.launch(stubborn)
    workbench.running(paths, ready=(0,))
    for number, expected in ((TERM, [TERM]), (INT, [TERM, INT]), (USR1, [TERM, INT, USR1])):
        workbench.launcher.signal(paths, number)
        wait_for(lambda expected=expected: received(workbench) == expected)
        time.sleep(SECOND_AFTER_S)  # sooner, it would be the same request
    workbench.launcher.signal(paths, signal.SIGQUIT)
    (rank,) = workbench.ended(paths).ranks
    assert (rank.signal, rank.killed_by_shim) == (signal.SIGKILL, "asked")


def test_other_signals_do_nothing_to_the_shim_or_its_ranks(workbench, stubborn):
    paths = workbench.launch(stubborn)
    state = workbench.running(paths, ready=(0,))
    for signum in (signal.SIGHUP, signal.SIGUSR2, signal.SIGALRM, signal.SIGPIPE, signal.SIGTSTP):
        assert workbench.launcher.signal(paths, signum)
    workbench.launcher.signal(paths, signal.SIGTERM)
    wait_for(lambda: received(workbench) == [TERM])
    assert runs(state.shim.pid)


def test_workers_of_a_rank_are_not_signalled(workbench):
    """In plain PyTorch a signal to the workers breaks the loader, and with it the rank, before it can
    save."""
    code = """
import os, signal, sys, time
worker = os.fork()
if worker == 0:
    signal.signal(signal.SIGTERM, lambda *_: open(os.environ["HERE"] + "/worker-was-hit", "w"))
    time.sleep(60)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(85))
open(os.environ["HERE"] + "/ready-0", "w").close()
while True: signal.pause()
"""
    paths = workbench.launch(python(code))
    workbench.running(paths, ready=(0,))
    workbench.launcher.signal(paths, signal.SIGTERM)
    record = workbench.ended(paths)
    assert record.ranks[0].exit_code == 85
    assert record.survivors_killed == 1
    assert not (workbench.here / "worker-was-hit").exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT])
def test_a_request_sent_the_moment_the_shim_exists_is_not_lost(workbench, stubborn, signum):
    """Before the interpreter has even begun: the signal is held from the first instruction on."""
    paths = workbench.launch(stubborn, grace_s=0.2)
    assert workbench.launcher.signal(paths, signum)
    record = workbench.ended(paths)
    assert record.ranks[0].signal in {signal.SIGTERM, signal.SIGKILL}
    assert (record.stop_requested_s is not None) == (signum == signal.SIGTERM)


def test_requests_at_every_moment_of_the_start_all_arrive(workbench, obedient):
    """A stop is asked for after ever longer waits, across the whole start of shim and rank."""
    for attempt in range(1, 13):
        paths = workbench.launch(obedient, attempt=attempt)
        signal.sigtimedwait([], attempt * 0.008)
        workbench.launcher.signal(paths, signal.SIGTERM)
        record = workbench.ended(paths)
        assert record.stop_requested_s is not None
        assert record.ranks[0].exit_code == 85 or record.ranks[0].signal == signal.SIGTERM


def test_a_shim_that_has_ended_is_not_signalled(workbench):
    paths = workbench.launch(("true",))
    workbench.watch(paths)
    assert not workbench.launcher.signal(paths, signal.SIGTERM)
