"""A drain within one process: where a process would leave, an exception is raised."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import trainerd
from tests.support.in_process import Loop
from trainerd.training.interruption import leaving


class Left(BaseException):
    """The process would have ended here."""


def drained_at(run_dir: Path, loop: Loop, call: int, *, steps: int = 100, **settings: Any) -> None:
    """Make one attempt that is asked to stop at the given call of the loop's second argument, from 1."""
    calls = itertools.count(1)

    def leave(_code: int) -> None:
        raise Left

    torch.manual_seed(99)
    with (
        mock.patch.object(leaving, "exit_process", leave),
        mock.patch.object(leaving, "end_workers", return_value=None),
    ):
        try:
            with trainerd.session(
                run_dir, every={"steps": steps, "seconds": None, "epochs": None}, **settings
            ) as session:

                def tick() -> None:
                    if next(calls) == call:
                        session._run.flag.ask("SIGTERM")

                loop(session, tick)
        except Left:
            return
    raise AssertionError(f"it ended before call {call}")
