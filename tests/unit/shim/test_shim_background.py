"""Which processes that a command left behind are waited for, and for how long."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainerd.contract.environment import ATTEMPT_ID
from trainerd.contract.process import identify
from trainerd.shim import background
from trainerd.shim.background import (
    BACKGROUND_IMPORT_LIMIT_S,
    BACKGROUND_SESSION_LIMIT_S,
    BackgroundProcesses,
    may_train,
)

MARK = "/somewhere/000001@12345678-1-1"
LOOK_S = 0.001
TRAINER = (sys.executable, "-I", "-S", "-c", "input()")


@pytest.fixture
def start():
    children = []

    def start(*command, **environ):
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, env={ATTEMPT_ID: MARK, "PATH": os.environ["PATH"], **environ}
        )
        children.append(child)
        # An exec wakes the parent before the new environment is to be seen.
        while not Path(f"/proc/{child.pid}/environ").read_bytes():
            time.sleep(LOOK_S)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def left_by(rank, child):
    ticks = identify(child.pid).start_ticks
    return BackgroundProcesses(MARK, rank, since_ticks=ticks, began_s=100.0)


@pytest.mark.parametrize("has_torch", [False, True])
def test_a_trainer_is_waited_for_longer_once_it_has_loaded_torch(start, monkeypatch, has_torch):
    monkeypatch.setattr(background, "maps_library", lambda *_: has_torch)
    left = left_by(None, start(*TRAINER))
    limit_s = BACKGROUND_SESSION_LIMIT_S if has_torch else BACKGROUND_IMPORT_LIMIT_S
    for waited_s in (0.0, limit_s - 0.1):
        assert left.is_waited_for(100.0 + waited_s)
    assert not left.is_waited_for(100.0 + limit_s)


def test_one_that_has_ended_is_not_waited_for(start):
    child = start(*TRAINER)
    left = left_by(None, child)
    assert left.is_waited_for(100.0)
    child.kill()
    child.wait()
    assert not left.is_waited_for(100.0)


def test_a_process_of_another_rank_or_attempt_is_not_of_this_rank(start):
    child = start(*TRAINER, RANK="1")
    assert left_by(1, child).living()
    assert not left_by(0, child).living()
    child.kill()  # the next one may begin in the same clock tick, and would not be told from it
    child.wait()
    assert not left_by(1, start(*TRAINER, **{ATTEMPT_ID: f"{MARK}0", "RANK": "1"})).living()


def test_only_an_interpreter_or_what_starts_one_may_train(start):
    assert may_train(os.getpid())
    assert not may_train(start("sleep", "60").pid)
