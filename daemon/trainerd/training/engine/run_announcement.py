"""The first lines of an attempt: where the run is kept, and whether it is new, resumed or finished."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from trainerd.contract.run_record import read_run_record, write_run_record
from trainerd.contract.start_folder import start_folder
from trainerd.errors import TrainerdError
from trainerd.training.interruption.leaving import say
from trainerd.training.which_run.argument_difference import as_sentence, differing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.checkpoint.store import Checkpoint, CheckpointStore
    from trainerd.training.settings import Settings
    from trainerd.training.which_run.run_choice import RunChoice

__all__ = ["announce_run", "new_run_hint", "note_program", "opening_lines"]


def announce_run(settings: Settings, store: CheckpointStore) -> None:
    """Say which run this is, and note its program in the run folder. Needs the writers' lock.

    Raises:
        SpaceError: The disk is full or read-only.
    """
    if settings.environment.job is not None:
        return  # `trainerd status` says it
    newest: Checkpoint | None = None
    with contextlib.suppress(OSError, TrainerdError):
        newest = (store.checkpoints() or (None,))[-1]
    place = _shown_place(settings.run.root, start_folder())
    has_attempts = settings.attempt > 1
    for line in opening_lines(place, newest, settings.choice, has_attempts=has_attempts):
        say(f"trainerd: {line}")
    if settings.choice is not None and read_run_record(settings.run.record) is None:
        note_program(settings)


def note_program(settings: Settings) -> None:
    """Note in the run folder which program trains it: a new run at once, others when they were restored.

    Raises:
        SpaceError: The disk is full or read-only.
    """
    if settings.choice is not None:
        write_run_record(settings.run.record, settings.choice.record)


def opening_lines(
    place: str, newest: Checkpoint | None, choice: RunChoice | None, *, has_attempts: bool
) -> Iterator[str]:
    """Yield the lines.

    Args:
        place: Where the run is kept.
        newest: Its newest checkpoint, not verified yet.
        choice: How the run was found, None if its folder was given.
        has_attempts: Whether there were attempts before this one.
    """
    if newest is None and has_attempts:
        yield f"run without a checkpoint so far, kept in {place}: it begins at step 0"
    elif newest is None:
        yield f"new run, kept in {place}"
    elif newest.manifest.is_final:
        yield (
            f"finished run, kept in {place}: complete at step {newest.step}; only what the program asks for "
            f"beyond that is trained. {_NEW}"
        )
    else:
        yield f"resumed run, kept in {place}: its newest checkpoint is {newest.name}"
    if choice is None:
        return
    if choice.is_adopted:
        made_by = ", and by another text of it" if choice.is_edited else ""
        yield (
            f"it was begun by an earlier version, which named runs after the script alone{made_by}; "
            "if it is of another script, begin a new run: TRAINERD_FRESH=1"
        )
    if choice.others and newest is None:
        nearest = choice.others[0]
        lines = differing(nearest.arguments, choice.record.arguments)
        what = f"has other arguments ({as_sentence(lines)})" if lines else "may be the one that is meant"
        rest = len(choice.others) - 1
        among = f" (the nearest of {rest + 1})" if rest else ""
        yield (
            f"an earlier run of this script{among} {what}; to continue that one: "
            f'TRAINERD_RUN={nearest.name} or session(run="{nearest.name}")'
        )


_NEW = "To begin a new run: TRAINERD_FRESH=1 or session(fresh=True); this one is moved aside"


def new_run_hint(job: str | None) -> str:
    """Return how a new run is begun in the place of one that does not fit."""
    how = f"trainerd restart {job} --fresh" if job is not None else "TRAINERD_FRESH=1 or session(fresh=True)"
    return f"to begin a new run: {how}; the old one is moved aside"


def _shown_place(root: Path, start: Path) -> str:
    """Return a folder as a person would write it: relative to the start folder, if it is below."""
    with contextlib.suppress(ValueError):
        return os.fspath(root.relative_to(start))
    return os.fspath(root)
