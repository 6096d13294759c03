"""Saves in the background: the values of the call, one at a time, and no error lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import psutil
import pytest
import torch

from tests.support.exact import Box
from trainerd import Checkpointer
from trainerd.contract import failpoints
from trainerd.errors import SpaceError

pytestmark = pytest.mark.torch

LIMIT_S = 20


@pytest.fixture
def armed():
    """Arms failpoints, and disarms them in the end."""

    yield failpoints.arm
    failpoints.arm("")


class Gate:
    """Holds the writing thread in the callback of a finished save until it is opened."""

    def __init__(self) -> None:
        self.is_reached = threading.Event()
        self.may_pass = threading.Event()

    def __call__(self, _checkpoint) -> None:
        self.is_reached.set()
        assert self.may_pass.wait(LIMIT_S)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_the_values_are_those_of_the_call(tmp_path, asynchronous):
    """Parameters, optimizer state, plain values and arrays are overwritten as soon as save returns."""
    model = torch.nn.Linear(300, 300)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    box = Box(
        {"plain": [1], "transposed": torch.ones(3, 4).t(), "double": torch.ones(2, dtype=torch.complex128)}
    )
    weight = model.weight.detach().clone()
    moment = optimizer.state[model.weight]["exp_avg"].clone()
    objects = {"model": model, "optimizer": optimizer, "box": box}
    with Checkpointer(tmp_path, objects, asynchronous=asynchronous) as checkpointer:
        checkpointer.save(step=1)
        with torch.no_grad():
            model.weight.fill_(-1)
            optimizer.state[model.weight]["exp_avg"].fill_(-1)
            optimizer.param_groups[0]["lr"] = -1
            box.tree["plain"].append(2)
            box.tree["transposed"].fill_(-1)
            box.tree["double"].fill_(-1)
        checkpointer.load(checkpointer.wait())
    assert torch.equal(model.weight, weight)
    assert torch.equal(optimizer.state[model.weight]["exp_avg"], moment)
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert box.tree["plain"] == [1]
    assert torch.equal(box.tree["transposed"], torch.ones(4, 3))
    assert torch.equal(box.tree["double"], torch.ones(2, dtype=torch.complex128))


def test_save_returns_before_it_is_durable_and_wait_does_not(tmp_path):
    gate = Gate()
    with Checkpointer(tmp_path, Box(1), on_saved=gate) as checkpointer:
        checkpointer.save(step=1)
        assert gate.is_reached.wait(LIMIT_S)
        assert checkpointer._manager.writer.is_busy
        gate.may_pass.set()
        assert checkpointer.wait().step == 1
        assert not checkpointer._manager.writer.is_busy


def test_without_asynchronous_it_is_durable_when_save_returns(tmp_path):
    with Checkpointer(tmp_path, Box(1), asynchronous=False) as checkpointer:
        checkpointer.save(step=1)
        assert [checkpoint.step for checkpoint in checkpointer.checkpoints()] == [1]


def test_at_most_one_save_is_in_flight(tmp_path):
    """A second save waits for the first: it does not return while that one is held up."""
    gate = Gate()
    has_returned = threading.Event()
    with Checkpointer(tmp_path, Box(1), on_saved=gate) as checkpointer:
        checkpointer.save(step=1)
        assert gate.is_reached.wait(LIMIT_S)
        waiter = threading.Thread(target=lambda: (checkpointer.save(step=2), has_returned.set()))
        waiter.start()
        assert not (tmp_path / "step-000000002").exists()
        assert not has_returned.is_set()
        gate.may_pass.set()
        waiter.join(LIMIT_S)
        assert has_returned.is_set()
    assert [checkpoint.step for checkpoint in checkpointer.checkpoints()] == [1, 2]


@pytest.mark.parametrize("how", ["save", "wait", "resume", "load", "close", "reset"])
def test_an_error_in_the_background_is_raised_by_the_next_call(tmp_path, armed, how):
    """Once, and then all goes on; what was durable before stays so."""
    checkpointer = Checkpointer(tmp_path, {"box": Box(1)})
    checkpointer.save(step=1)
    checkpointer.wait()
    armed("checkpoint.manifest.synced=EIO")
    checkpointer.save(step=2)
    calls = {
        "save": lambda: checkpointer.save(step=3),
        "load": lambda: checkpointer.load("1"),
    }
    with pytest.raises(OSError, match=r"injected at checkpoint\.manifest\.synced"):
        calls.get(how, getattr(checkpointer, how, None))()
    armed("")
    assert [checkpoint.step for checkpoint in checkpointer.checkpoints()] == [1]
    assert not list(tmp_path.glob(".staging*"))
    checkpointer.save(step=4)
    assert checkpointer.wait().step == 4
    checkpointer.close()


def test_a_full_disk_is_an_error_that_says_so(tmp_path, armed):
    with Checkpointer(tmp_path, {"box": Box(1)}, keep_last=1) as checkpointer:
        checkpointer.save(step=1)
        checkpointer.wait()
        armed("checkpoint.data.written=ENOSPC")
        checkpointer.save(step=2)
        with pytest.raises(SpaceError, match="No space left"):
            checkpointer.wait()
        armed("")
        assert checkpointer.newest.step == 1
        checkpointer.save(step=2)
    assert [checkpoint.step for checkpoint in checkpointer.checkpoints()] == [2]


def test_an_error_of_the_callback_is_raised_too_and_the_checkpoint_stands(tmp_path):
    def on_saved(_checkpoint):
        raise ValueError("my mistake")

    with Checkpointer(tmp_path, {"box": Box(1)}, on_saved=on_saved) as checkpointer:
        checkpointer.save(step=1)
        with pytest.raises(ValueError, match="my mistake"):
            checkpointer.wait()
        assert checkpointer.newest.step == 1


def test_the_lock_is_let_go_of_though_the_last_save_failed(tmp_path, armed):
    checkpointer = Checkpointer(tmp_path, {"box": Box(1)})
    armed("checkpoint.manifest.synced=EIO")
    checkpointer.save(step=1)
    with pytest.raises(OSError, match="injected"):
        checkpointer.close()
    armed("")
    with Checkpointer(tmp_path, {"box": Box(1)}) as checkpointer:
        checkpointer.save(step=1)


def test_fifty_saves_need_no_more_memory_than_one(tmp_path):
    """One arena, kept: 50 saves of 8 MB grow the process by less than two more states."""
    size = 8 << 20
    with Checkpointer(tmp_path, Box(torch.ones(size // 4)), keep_last=1) as checkpointer:
        checkpointer.save(step=1)
        checkpointer.wait()
        process = psutil.Process(os.getpid())
        before = process.memory_info().rss
        threads = threading.active_count()
        for step in range(2, 52):
            checkpointer.save(step=step)
        checkpointer.wait()
        assert process.memory_info().rss - before < 2 * size
        assert threading.active_count() <= threads + 1


SAVES_AND_COUNTS = """
import os, sys, threading, time
import torch
from trainerd import Checkpointer

def threads_of_no_python():
    return len(os.listdir("/proc/self/task")) - threading.active_count()

torch.set_num_threads(2)
weight = torch.ones(1 << 22).add_(1)  # torch's team is there now
before = threads_of_no_python()
objects = torch.nn.ParameterDict(
    {"whole": weight, "turned": weight.view(2048, 2048).t(), "wide": weight.to(torch.complex128)}
)
with Checkpointer(sys.argv[1], objects, keep_last=1) as checkpointer:
    for step in range(1, 4):
        checkpointer.save(step=step)
        checkpointer.wait()
    deadline_s = time.monotonic() + 5
    while (now := threads_of_no_python()) != before and time.monotonic() < deadline_s:
        time.sleep(0.05)  # one that ends is gone for Python a moment before it is for the system
sys.exit(0 if now == before else f"{now} threads, not {before}")
"""


def test_saves_leave_torch_with_the_one_team_of_threads_that_it_had(tmp_path):
    """Another thread that computes gets a team of its own, and then libgomp waits without spinning: every
    later step of the loop is longer by a sixth and more."""
    done = subprocess.run(
        [sys.executable, "-c", SAVES_AND_COUNTS, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
