"""Begins a new run where there is one: the one that is there is moved aside, never deleted."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainerd.checkpoint.run_entries_aside import complete_move, move_entries_aside
from trainerd.contract.paths import RunPaths
from trainerd.contract.start_folder import start_folder, working_folder
from trainerd.errors import UserError
from trainerd.training.distributed.restart_rounds import ROUND
from trainerd.training.interruption.leaving import say
from trainerd.training.settings import next_attempt
from trainerd.training.which_run.kept_runs import RUNS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.settings import Settings
    from trainerd.training.which_run.run_choice import RunChoice

NAMES_SHOWN_MAX: Final = 3


def settled(settings: Settings, ranks: Ranks | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings with the run that all ranks train: rank 0 decides, and moves the old one aside.

    Raises:
        LockedError: A new run is to begin, and another process trains the old one.
        UserError: The old one cannot be moved aside.
    """
    begins_new = settings.is_fresh and _begins_fresh(settings, environ)
    if ranks is None:
        _make_room(settings, begins_new=begins_new)
    else:
        agreed = ranks.agreed("run", lambda: _decided(settings, begins_new=begins_new))
        if settings.choice is not None:
            settings = _with_run(settings, settings.choice, agreed)
    if settings.environment.attempt_dir is None:
        settings = dataclasses.replace(settings, attempt_paths=next_attempt(settings.run))
    return settings


def _begins_fresh(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Tell whether a new run is to begin: not in each attempt of a job, nor in each round of torchrun."""
    job = settings.environment.job
    if job is not None:
        say(
            "trainerd: fresh has no effect: a supervised job begins a new run by "
            f"`trainerd restart {job} --fresh`"
        )
        return False
    return environ.get(ROUND, "0") in {"", "0"}


def _make_room(settings: Settings, *, begins_new: bool) -> None:
    """Move the run that is there aside, or only complete a move that was interrupted, and say where it is.

    Raises:
        LockedError: Another process trains it.
        UserError: It cannot be moved.
    """
    if settings.environment.job is not None:
        return
    run = settings.run
    if begins_new:
        _check_not_inside(run)
    moved = move_entries_aside(run) if begins_new else complete_move(run)
    if moved is None:
        return
    say(f"trainerd: a new run begins; the one that was there is kept in {moved.place}")
    if moved.stayed:
        shown = ", ".join(moved.stayed[:NAMES_SHOWN_MAX])
        rest = len(moved.stayed) - NAMES_SHOWN_MAX
        say(
            f"trainerd: not moved, as trainerd did not make it: {shown}"
            f"{f' and {rest} more' if rest > 0 else ''} in {run.root}"
        )


def _check_not_inside(run: RunPaths) -> None:
    """Check that this program neither works in the run, nor was started in it, nor has its script there.

    Raises:
        UserError: It does.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    entries = [os.path.realpath(entry) for entry in run.entries]
    for used in (start_folder(), working_folder(), Path(script) if script else None):
        if used is not None and any(Path(os.path.realpath(used)).is_relative_to(each) for each in entries):
            raise UserError(
                f"the run in {run.root} cannot be moved aside: {used} is in it",
                hint="give the run a folder of its own: session(run_dir=…)",
            )


def _decided(settings: Settings, *, begins_new: bool) -> dict[str, Any]:
    """Return the run for all ranks, after what was there has made room."""
    _make_room(settings, begins_new=begins_new)
    choice = settings.choice
    if choice is None:
        return {}
    is_usual = choice.paths.root.parent == choice.start / RUNS
    return {
        "place": choice.paths.root.name if is_usual else os.fspath(choice.paths.root),
        "name": choice.record.name,
        "is_named": choice.record.is_named,
    }


def _with_run(settings: Settings, choice: RunChoice, agreed: dict[str, Any]) -> Settings:
    """Return the settings with the run that rank 0 has chosen; this rank may find others on its disk."""
    paths = RunPaths(choice.start / RUNS / agreed["place"])  # an absolute path stays what it is
    record = dataclasses.replace(choice.record, name=agreed["name"], is_named=agreed["is_named"])
    return dataclasses.replace(
        settings, run=paths, choice=dataclasses.replace(choice, paths=paths, record=record)
    )
