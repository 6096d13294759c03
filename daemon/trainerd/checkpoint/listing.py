"""What is in a checkpoints folder. Looking changes nothing and reads no data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.checkpoint.checkpoint_names import CheckpointName
from trainerd.checkpoint.committed import Checkpoint, place_of, read_checkpoint
from trainerd.checkpoint.fork import pending_fork
from trainerd.checkpoint.manifest import NewerFormatError
from trainerd.errors import CorruptError, TrainerdError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["checkpoint_folders", "entries", "scan"]


def entries(directory: Path) -> list[Path]:
    """Return everything in a folder; one that does not exist yet has nothing in it.

    Raises:
        OSError: It cannot be read: unknown, not empty.
    """
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []


def checkpoint_folders(directory: Path) -> list[Path]:
    """Return the folders named like a checkpoint, oldest first. Links and files of such a name are not ours.

    Those that a fork left behind and that are still to be moved do not count any more.

    Raises:
        CorruptError: The note of a fork cannot be read.
    """
    fork = pending_fork(directory)
    left_behind = fork.names if fork is not None else ()
    return sorted(
        (
            path
            for path in entries(directory)
            if CheckpointName.parse(path.name) is not None
            and path.name not in left_behind
            and path.is_dir()
            and not path.is_symlink()
        ),
        key=place_of,
    )


def scan(directory: Path) -> Iterator[Checkpoint | TrainerdError]:
    """Yield every checkpoint, oldest first.

    In place of one whose manifest cannot be read, what is wrong with it.
    """
    for path in checkpoint_folders(directory):
        try:
            yield read_checkpoint(path)
        except FileNotFoundError:
            continue  # pruned while we looked
        except (CorruptError, NewerFormatError) as error:
            yield error
        except OSError as error:
            yield TrainerdError(f"{path.name}: could not be read: {error.strerror}")
