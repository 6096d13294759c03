"""A fork: the run goes on from an older checkpoint, and the newer ones are left behind.

Moving several folders is not one act, so the decision is written down first, durably and by name. From that
moment none of those named is listed or resumed from, whatever happens; a crash in mid-move is completed by
the next writer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import FORK_NAME
from trainerd.contract.codec import from_json, to_json
from trainerd.contract.durable import read_file, sync_directory, write_file
from trainerd.contract.failpoints import declare
from trainerd.contract.regular_file import NotRegularError
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Fork", "clear_fork", "note_fork", "pending_fork"]

FORK_FORMAT: Final = "trainerd.fork/1"

NOTED = declare("fork.noted", "newer checkpoints in place that no longer count; the next writer moves them")
CLEARED = declare("fork.cleared", "all newer checkpoints moved; perhaps the note, which then names none")


@dataclass(frozen=True)
class Fork:
    """Which checkpoints are left behind, and why."""

    names: tuple[str, ...]
    reason: str


def note_fork(directory: Path, fork: Fork) -> None:
    """Decide: from now on those that `fork` names do not count."""
    write_file(directory / FORK_NAME, to_json(fork, FORK_FORMAT))
    NOTED.hit()


def pending_fork(directory: Path) -> Fork | None:
    """Return the fork whose checkpoints are still to be moved, None if there is none.

    Raises:
        CorruptError: Its note cannot be read, so it is unknown which checkpoints count.
    """
    path = directory / FORK_NAME
    try:
        return from_json(read_file(path), Fork, FORK_FORMAT, source=path)
    except FileNotFoundError:
        return None
    except (CorruptError, NotRegularError) as error:
        problem = error.message if isinstance(error, CorruptError) else f"{path} {error.strerror}"
        raise CorruptError(
            f"{problem}: it names the checkpoints that a fork left behind",
            hint=f"move those newer than the one to go on from into abandoned/, then delete {path}",
        ) from error


def clear_fork(directory: Path) -> None:
    """Forget the fork: all that it names were moved."""
    (directory / FORK_NAME).unlink(missing_ok=True)
    CLEARED.hit()
    sync_directory(directory)
