"""A shim that is started before it is needed: it minds what it is told, once, and is nothing before."""

from __future__ import annotations

import os
import signal
import time

import pytest
from shim_workbench import shell

from trainerd.contract import records
from trainerd.contract.process import identify
from trainerd.contract.records import ShimRecord
from trainerd.supervisor.launcher import SPARE_AFTER_S, ShimLauncher


class FarClock:
    """Long after any launch, whenever it is asked."""

    def __init__(self):
        self.ahead_s = 0.0

    def wall_s(self):
        return time.time()

    def monotonic_s(self):
        self.ahead_s += SPARE_AFTER_S
        return time.monotonic() + self.ahead_s


@pytest.fixture
def spare(workbench):
    """The pid of one that waits."""
    workbench.launcher = ShimLauncher(clock=FarClock())
    workbench.launcher.prepare_spare()
    (pid,) = workbench.launcher.child_pids
    yield pid
    workbench.launcher.dismiss_spare()


def shim_pid(paths):
    return records.read(paths.shim, ShimRecord).process.pid


def test_a_spare_minds_the_next_attempt_and_no_other(workbench, spare):
    workbench.launcher.prepare_spare()
    assert workbench.launcher.child_pids == {spare}
    first = workbench.launch(shell("exit 3"))
    assert workbench.ended(first).ranks[0].exit_code == 3
    assert (shim_pid(first), first.shim_log.exists()) == (spare, True)
    second = workbench.launch(shell("exit 0"), attempt=2)
    assert workbench.ended(second).ranks[0].exit_code == 0
    assert shim_pid(second) != spare


def test_a_spare_that_has_died_is_not_asked(workbench, spare):
    os.kill(spare, signal.SIGKILL)
    os.waitid(os.P_PID, spare, os.WEXITED | os.WNOWAIT)
    paths = workbench.launch(shell("exit 0"))
    assert workbench.ended(paths).ranks[0].exit_code == 0
    assert shim_pid(paths) != spare


def test_a_spare_that_is_dismissed_or_whose_supervisor_is_gone_leaves_nothing(workbench, spare):
    launcher = workbench.launcher
    launcher.dismiss_spare()
    assert (launcher.child_pids, identify(spare)) == (frozenset(), None)
    launcher.prepare_spare()
    (spare,) = launcher.child_pids
    os.close(launcher._spare._waiting.order)  # as the kernel does for one that was killed
    assert os.WEXITSTATUS(os.waitpid(spare, 0)[1]) == 0
    launcher._spare._waiting = None
