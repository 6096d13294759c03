"""Attempts at a run within one process: an exception stands for SIGKILL, after which nothing is saved.

Dozens of them cost as much as one process that imports torch. What only a process can show (signals, SIGKILL
in the middle of a write, workers that outlive it) is shown by processes elsewhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import trainerd
from tests.support.training_runs import Result, result_of
from trainerd.training.engine.run_saves import RunSaves

Tick = Callable[[], None]
Loop = Callable[[trainerd.Session, Tick], None]


class Crash(Exception):  # noqa: N818 - what it stands for is no error
    """The end of an attempt."""


def attempt(
    run_dir: Path, loop: Loop, *, crash_at: int | None = None, steps: int = 3, **settings: Any
) -> bool:
    """Make one attempt. Tell whether the run has finished.

    Args:
        run_dir: The run folder.
        loop: A whole training script but for its session. It calls its second argument wherever it may crash.
        crash_at: At which of those calls it does, from 1.
        steps: How often to checkpoint.
        settings: For the session.
    """
    calls = itertools.count(1)

    def tick() -> None:
        if next(calls) == crash_at:
            raise Crash

    torch.manual_seed(99)  # an attempt finds the generators as they happen to be
    try:
        with (
            mock.patch.object(RunSaves, "flush_held", lambda saves: saves.newest),
            trainerd.session(
                run_dir, every={"steps": steps, "seconds": None, "epochs": 1}, **settings
            ) as session,
        ):
            loop(session, tick)
    except Crash:
        return False
    return True


def disturbed(run_dir: Path, loop: Loop, crashes: tuple[int, ...], **settings: Any) -> Result:
    """Return what a run leaves that crashes in its first attempts, each at the given call."""
    for crash_at in crashes:
        assert not attempt(run_dir, loop, crash_at=crash_at, **settings), f"it ended before call {crash_at}"
    assert attempt(run_dir, loop, **settings)
    return result_of(run_dir)


def undisturbed(run_dir: Path, loop: Loop, **settings: Any) -> Result:
    """Return what a run leaves that nobody disturbs."""
    return disturbed(run_dir, loop, (), **settings)
