"""Process 1 collects the orphans nobody wants, and no child that somebody waits for."""

from __future__ import annotations

import contextlib
import os

import pytest

from trainerd.contract.process import identify, is_alive
from trainerd.supervisor.attempt.reaper import OrphanReaper, is_reaper_needed


@pytest.fixture
def zombie():
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # what other tests of this process left
            pass
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    while is_alive(identify(pid)):
        os.sched_yield()
    yield pid
    if identify(pid) is not None:
        os.waitpid(pid, os.WNOHANG)


def test_a_zombie_is_reaped_at_the_second_look(zombie):
    reaper = OrphanReaper()
    assert reaper.look() == 0
    assert identify(zombie) is not None
    assert reaper.look() == 1
    assert identify(zombie) is None


def test_a_child_that_somebody_waits_for_is_left_alone(zombie):
    reaper = OrphanReaper()
    assert [reaper.look(own={zombie}) for _ in range(3)] == [0, 0, 0]
    assert os.waitpid(zombie, 0)[1] == 7 << 8


def test_a_zombie_collected_between_two_looks_is_no_trouble(zombie):
    reaper = OrphanReaper()
    reaper.look()
    os.waitpid(zombie, 0)
    assert reaper.look() == 0


def test_an_ordinary_process_needs_no_reaper():
    assert not is_reaper_needed()
