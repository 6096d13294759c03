"""Begins a new run where there is one: the one that is there is moved aside, never deleted."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.run_aside import move_run_aside
from trainerd.contract.start_folder import start_folder
from trainerd.errors import UserError
from trainerd.training.distributed.restart_rounds import ROUND
from trainerd.training.interruption.leaving import say
from trainerd.training.settings import next_attempt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.settings import Settings

SUPERVISED_HINT: Final = "a supervised job begins a new run by `trainerd restart {job} --fresh`"


def settled(settings: Settings, ranks: Ranks | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings with the run that all ranks train: rank 0 decides, and moves the old one aside.

    Raises:
        LockedError: A new run is to begin, and another process trains the old one.
        UserError: The old one cannot be moved aside.
    """
    begins_new = settings.is_fresh and begins_fresh(settings, environ)
    if ranks is None:
        if begins_new:
            set_aside(settings)
    else:
        name = ranks.agreed("run", lambda: _decided(settings, begins_new=begins_new))
        if settings.choice is not None:
            settings = _with_name(settings, name)
    if begins_new and settings.environment.attempt_dir is None:
        settings = dataclasses.replace(settings, attempt_paths=next_attempt(settings.run))
    return settings


def begins_fresh(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Tell whether a new run is to begin: not in each attempt of a job, nor in each round of torchrun."""
    job = settings.environment.job
    if job is not None:
        say(f"trainerd: fresh has no effect: {SUPERVISED_HINT.format(job=job)}")
        return False
    return environ.get(ROUND, "0") in {"", "0"}


def set_aside(settings: Settings) -> None:
    """Move the run that is there aside, and say where it is.

    Raises:
        LockedError: Another process trains it.
        UserError: It cannot be moved.
    """
    root = settings.run.root
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    for used in (start_folder(), Path.cwd(), *([Path(script)] if script else [])):
        if Path(os.path.realpath(used)).is_relative_to(os.path.realpath(root)):
            raise UserError(
                f"the run folder {root} cannot be moved aside: {used} is in it",
                hint="give the run a folder of its own: session(run_dir=…)",
            )
    place = move_run_aside(settings.run)
    if place is not None:
        say(f"trainerd: a new run begins; the one that was there is kept in {place}")


def _decided(settings: Settings, *, begins_new: bool) -> str:
    if begins_new:
        set_aside(settings)
    return settings.run.root.name


def _with_name(settings: Settings, name: str) -> Settings:
    """Return the settings with the run of that name, beside the one that this rank has chosen."""
    choice = settings.choice
    assert choice is not None
    paths = dataclasses.replace(settings.run, root=settings.run.root.with_name(name))
    choice = dataclasses.replace(choice, paths=paths)
    return dataclasses.replace(settings, run=paths, choice=choice)
