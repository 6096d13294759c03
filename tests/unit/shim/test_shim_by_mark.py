"""The shim of an attempt whose records are gone, found by the mark of its processes."""

import os
import signal
from pathlib import Path

import pytest

from tests.support.waiting import wait_for
from trainerd.contract.environment import ATTEMPT_ID
from trainerd.contract.process import boot_id, identify
from trainerd.shim.survivors import WAITING_TITLE, attempt_mark, shim_by_mark


@pytest.fixture
def start():
    """Return a function that starts a process with a name, and with a mark."""
    pids = []

    def started(name, mark="none"):
        pids.append(os.posix_spawn("/bin/sleep", [name, "1000"], {ATTEMPT_ID: mark}))
        # For some microseconds of its birth the kernel shows neither.
        process = Path(f"/proc/{pids[-1]}")
        wait_for(
            lambda: (process / "environ").read_bytes() and (process / "cmdline").read_bytes(),
            name,
            limit_s=10.0,
        )
        identity = identify(pids[-1])
        assert identity.boot_id == boot_id()
        return identity

    yield started
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_shim_is_found_by_the_mark_of_a_process(tmp_path, start):
    shim = start("trainerd-shim ant attempt 2")
    start("rank", attempt_mark(tmp_path, shim))
    assert shim_by_mark(tmp_path) == shim


def test_one_that_waits_with_a_standby_for_that_attempt_is_not_its_shim(tmp_path, start):
    waiting = start(f"{WAITING_TITLE} ant attempt 2")
    start("standby", attempt_mark(tmp_path, waiting))
    assert shim_by_mark(tmp_path) is None
    shim = start("trainerd-shim ant attempt 2")
    start("rank", attempt_mark(tmp_path, shim))
    assert shim_by_mark(tmp_path) == shim
