"""The writers' lock: one process at a time, and a clear word for the second."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trainerd.checkpoint.lock import holds_lock
from trainerd.checkpoint.store import CheckpointStore
from trainerd.errors import InternalError, LockedError

WAIT_S = 20

HOLD = """
import sys
from pathlib import Path
from trainerd.checkpoint.store import CheckpointStore
with CheckpointStore(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_holder(unlocked):
    """Another process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(unlocked.directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait(timeout=WAIT_S)
    process.stdin.close()
    process.stdout.close()


def test_the_second_process_is_told_who_holds_it(unlocked, other_holder):
    with (
        pytest.raises(LockedError, match=rf"written by another process \(pid {other_holder.pid} on "),
        unlocked.lock(),
    ):
        pass


def test_a_killed_holder_leaves_no_lock(unlocked, other_holder):
    other_holder.kill()
    other_holder.wait(timeout=WAIT_S)
    with unlocked.lock():
        assert holds_lock(unlocked.directory)


def test_a_waiter_gets_it_when_the_holder_ends(unlocked, other_holder):
    other_holder.stdin.close()
    with unlocked.lock(wait_s=WAIT_S):
        assert holds_lock(unlocked.directory)


def test_one_process_cannot_hold_it_twice_and_keeps_what_it_has(unlocked, tmp_path):
    second = CheckpointStore(unlocked.directory)
    with unlocked.lock():
        with pytest.raises(LockedError, match="this very process"), second.lock():
            pass
        # A record lock is lost when any descriptor of the file is closed: it must not have been opened again.
        probe = subprocess.run(
            [sys.executable, "-c", HOLD, str(unlocked.directory)],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT_S, check=False,
        )  # fmt: skip
        assert b"LockedError" in probe.stderr
    with second.lock():
        pass


def test_a_forked_child_does_not_hold_it(unlocked):
    with unlocked.lock():
        child = os.fork()
        if child == 0:
            os._exit(holds_lock(unlocked.directory))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert holds_lock(unlocked.directory)


def test_a_forked_child_that_outlives_its_parent_keeps_nobody_out(unlocked):
    """Loader workers are forked while the lock is held, and may outlive the training process."""
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom trainerd.checkpoint.store import CheckpointStore\n"
        "with CheckpointStore(Path(sys.argv[1])).lock():\n"
        "    child = os.fork()\n"
        "    if child == 0: sys.stdin.read(); os._exit(0)\n"
        "    print(child, flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(unlocked.directory)]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    assert parent.wait(timeout=WAIT_S) == 0
    os.kill(child, 0)
    with unlocked.lock():
        pass
    parent.stdin.close()
    parent.stdout.close()


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.begin(1),
        lambda store: store.sweep(),
        lambda store: store.prune(None),
        lambda store: store.make_room(1, None),
        lambda store: store.keep_reserve(1),
        lambda store: store.set_aside_after(None, ""),
    ],
)
def test_writing_without_the_lock_is_a_bug(unlocked, act):
    with pytest.raises(InternalError, match="needs the writers' lock"):
        act(unlocked)
