"""Runs within one process that are struck at a given place, by what stands for SIGKILL or SIGTERM.

A kill is an exception that nothing catches: nothing is saved after it. A request to stop is made to the drain
flag, as the signal handler makes it; the end of the process that follows at a boundary is an exception too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Literal

import pytest
import torch
from _pytest.mark.structures import ParameterSet

import trainerd
from tests.support.training_runs import Result, result_of
from trainerd.training import loop_wrappers
from trainerd.training.engine import run_resume
from trainerd.training.engine.run_saves import RunSaves
from trainerd.training.interruption import leaving
from trainerd.training.state import program_fingerprint

Kind = Literal["SIGKILL", "SIGTERM"]
Shape = Callable[[trainerd.Session, Callable[[], None]], None]
ATTEMPTS_MAX = 4
CHECK_WRAPPER = loop_wrappers.check_wrapper


class Killed(BaseException):
    """The end of an attempt without any warning."""


class Left(BaseException):
    """The end of an attempt that has saved a boundary."""


class StruckRun:
    """A run of a shape in a folder of its own.

    Args:
        monkeypatch: Keeps the process from ending where an attempt does.
        folder: The run folder.
        shape: Trains.
        checks_wrapper: Whether what a loop is wrapped in is searched for, which takes most of the time.
        settings: For the session.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, shape: Shape, *, checks_wrapper=False, **settings
    ) -> None:
        self.ticks = 0
        self.attempts = 0
        self._folder, self._shape = folder, shape
        self._settings = {"every": {"steps": 2, "seconds": None, "epochs": 1}} | settings

        def leave(code: int) -> None:
            raise Left(code)

        monkeypatch.setattr(leaving, "exit_process", leave)
        monkeypatch.setattr(leaving, "end_workers", lambda: None)
        monkeypatch.setattr(RunSaves, "flush_held", lambda saves: saves.newest)  # SIGKILL saves nothing
        for module in (leaving, run_resume):
            monkeypatch.setattr(module, "say", lambda message: None)
        # What costs most, and has tests of its own: durability, the digests of all files of this repository,
        # and the search for a wrapper that few shapes have.
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        monkeypatch.setattr(program_fingerprint, "_code", dict)
        check = CHECK_WRAPPER if checks_wrapper else lambda batches, suspect: None
        monkeypatch.setattr(loop_wrappers, "check_wrapper", check)

    def attempt(self, kind: Kind | None = None, at: int = 0) -> bool:
        """Make one attempt, struck at a tick if there is a kind. Tell whether it has finished the run."""
        self.ticks, self.attempts = 0, self.attempts + 1
        torch.manual_seed(99 + self.attempts)  # an attempt finds the generators as they happen to be
        try:
            with trainerd.session(self._folder, **self._settings) as session:

                def tick() -> None:
                    self.ticks += 1
                    if kind is not None and self.ticks == at:
                        if kind == "SIGKILL":
                            raise Killed  # noqa: TRY301 - see above
                        session._run.flag.ask(kind)

                self._shape(session, tick)
        except (Killed, Left):
            return False
        return True

    def result(self, kind: Kind | None = None, at: int = 0) -> Result:
        """Run until the run has finished, struck once at most. Return what it leaves."""
        is_over = self.attempt(kind, at)
        while not is_over:
            assert self.attempts < ATTEMPTS_MAX, f"not finished after {self.attempts} attempts"
            is_over = self.attempt()
        return result_of(self._folder)


def struck_reasons(folder: Path) -> dict[str, dict[str, str]]:
    """Return what is said against the newest resume of a run, by kind."""
    reasons = json.loads((folder / "resume.json").read_text())["reasons"]
    return {each["kind"]: each for each in reasons}


def struck_shapes(shapes: Iterable[Shape], everyday: Container[str]) -> list[ParameterSet]:
    """Return shapes for ``parametrize``, each for some of its places and for the rest.

    Args:
        shapes: The shapes.
        everyday: Names of those that are struck every day, at some of their places.
    """
    return [
        pytest.param(
            shape,
            is_rest,
            id=f"{shape.__name__}-{is_rest}",
            marks=() if shape.__name__ in everyday and not is_rest else pytest.mark.slow,
        )
        for shape in shapes
        for is_rest in (False, True)
    ]
