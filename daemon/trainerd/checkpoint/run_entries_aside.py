"""Moves a run out of a folder that may hold other things too. Nothing is deleted, and those stay.

The entries of the run are gathered in a hidden folder within, which is then renamed to a free name such as
``out.old-1``.

Invariants:
    While the hidden folder is there, the next session of the run completes the move before it does anything.
    The checkpoints are moved last, and the lock is theirs: one process moves, and none trains.
    The record of the program stays until all is moved, so that the program still finds the folder.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import LOCK_NAME, CheckpointName
from trainerd.checkpoint.memory_place import discard_memory
from trainerd.checkpoint.run_aside import RUN_ASIDE, free_place, immovable, is_aside
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.durable import TEMPORARY_INFIX, read_file, sync_directory, write_file
from trainerd.contract.failpoints import declare
from trainerd.contract.paths import RunPaths
from trainerd.contract.regular_file import NotRegularError
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MovedRun", "complete_move", "holds_run", "move_entries_aside"]

DEPARTING = declare("run.departing", "a part of the run in `.departing`; the next session moves the rest")

_PLACE_REFUSED: Final = frozenset({errno.EXDEV, errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS})
"""Error numbers of a folder beside which nothing can be put, such as the root of a disk."""


@dataclass(frozen=True)
class MovedRun:
    """A run that was moved aside.

    Attributes:
        place: Where it is.
        stayed: Names of what is in the folder and no part of a run, sorted.
    """

    place: Path
    stayed: tuple[str, ...]


def holds_run(run: RunPaths) -> bool:
    """Tell whether a session has trained in this folder. Other things may be in it, whatever their names."""
    return (
        run.job.exists()
        or os.path.lexists(run.checkpoints / LOCK_NAME)
        or any(CheckpointName.parse(name) is not None for name in _names(run.checkpoints))
        or any(name.isdigit() for name in _names(run.attempts))
    )


def move_entries_aside(run: RunPaths) -> MovedRun | None:
    """Move the run in a folder to a free name beside the folder; return it, None if there is no run.

    Where nothing can be put beside the folder, such as a disk that is mounted there, the place is within.

    Raises:
        LockedError: Another process trains this run.
        UserError: It cannot be moved; it is where it was.
    """
    if run.departing.is_dir():
        return complete_move(run)
    if not holds_run(run):
        return None
    with CheckpointStore.of_run(run).lock():
        discard_memory(run.checkpoints)
        try:
            run.departing.mkdir()
            sync_directory(run.root)
        except OSError as error:
            raise immovable(run, error) from error
        DEPARTING.hit()
        return _finish(run)


def complete_move(run: RunPaths) -> MovedRun | None:
    """Complete a move that a crash has interrupted; return the run, None if there was no such move.

    Raises:
        LockedError: Another process moves it at this moment.
        UserError: It cannot be moved; it is where it was.
    """
    moved = RunPaths(run.departing)
    while run.departing.is_dir():
        locked = moved if moved.checkpoints.is_dir() else run
        with CheckpointStore.of_run(locked).lock():
            # The process that moves it may have moved the checkpoints, with their lock, since the look.
            if locked is moved or not moved.checkpoints.is_dir():
                return _finish(run)
    return None


def _finish(run: RunPaths) -> MovedRun:
    try:
        _copy_record(run)
        for path in (*_temporaries(run.root), *run.entries):
            target = run.departing / path.name
            if path == run.checkpoints:
                sync_directory(run.departing)
            if os.path.lexists(path) and not os.path.lexists(target):
                path.rename(target)
                DEPARTING.hit()
        sync_directory(run.departing)
        place = _publish(run)
    except OSError as error:
        _put_back(run)
        raise immovable(run, error) from error
    RUN_ASIDE.hit()
    run.record.unlink(missing_ok=True)
    sync_directory(run.root)
    stayed = [name for name in _names(run.root) if not is_aside(name) and run.root / name not in run.entries]
    return MovedRun(place, tuple(sorted(stayed)))


def _copy_record(run: RunPaths) -> None:
    try:
        record = read_file(run.record)
    except (FileNotFoundError, CorruptError, NotRegularError):
        return
    copy = RunPaths(run.departing).record
    if not copy.exists():
        write_file(copy, record)


def _publish(run: RunPaths) -> Path:
    place = free_place(run.root)
    try:
        run.departing.rename(place.path)
    except OSError as error:
        if error.errno not in _PLACE_REFUSED:
            raise
        place = free_place(run.root, within=True)
        run.departing.rename(place.path)
    return place.show()


def _put_back(run: RunPaths) -> None:
    """Put everything back where it was, as far as that can be done: what is left is completed next time."""
    copy = RunPaths(run.departing).record
    try:
        for path in reversed(run.entries):
            source = run.departing / path.name
            if os.path.lexists(source) and not os.path.lexists(path):
                source.rename(path)
        if run.record.exists():
            copy.unlink(missing_ok=True)
        run.departing.rmdir()
    except OSError:
        return


def _temporaries(folder: Path) -> list[Path]:
    """Return what interrupted writes of records left."""
    return [folder / name for name in _names(folder) if name.startswith(".") and TEMPORARY_INFIX in name]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []
