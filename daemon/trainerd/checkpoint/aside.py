"""Moving a checkpoint aside, with the reason.

Into quarantine (damaged) or among the abandoned (a fork left it).

Nothing is ever deleted here, and what is aside is never resumed from. The note is made durable first and the
folder renamed after, so a folder aside always has its reason; a note without a folder is what a crash between
the two leaves, and the next move of that name replaces it.
"""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import CheckpointName
from trainerd.contract.codec import from_json, to_json
from trainerd.contract.durable import make_directory, read_file, sync_directory, write_file
from trainerd.contract.failpoints import declare
from trainerd.errors import CorruptError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Aside", "AsideFolder", "Note", "aside_folders", "give_back", "take_aside"]

ASIDE_FORMAT: Final = "trainerd.aside/1"
NOTE_SUFFIX: Final = ".reason.json"

NOTED = declare(
    "aside.noted", "the checkpoint where it was, and a note of why it should move; moved next time"
)
MOVED = declare(
    "aside.moved", "the checkpoint aside with its note; after a power cut perhaps still where it was"
)
GIVEN_BACK = declare(
    "aside.given-back", "the checkpoint in place again, and its note, which names nothing then"
)


@dataclass(frozen=True)
class Note:
    """What is written beside a checkpoint that was moved aside.

    Attributes:
        name: The name it had.
        reason: Why it was moved.
        moved_wall_s: When, in seconds since the epoch; 0 if that is unknown.
        pin: The note of the pin it had, None if it had none.
    """

    name: str
    reason: str
    moved_wall_s: float
    pin: str | None = None


@dataclass(frozen=True)
class Aside:
    """A checkpoint that was moved aside: where it is and what its note says."""

    path: Path
    note: Note

    @property
    def name(self) -> str:
        return self.note.name

    @property
    def reason(self) -> str:
        return self.note.reason


@dataclass(frozen=True)
class AsideFolder:
    """One folder of checkpoints that were moved aside."""

    path: Path

    def take(self, folder: Path, *, reason: str, now_s: float, pin: str | None = None) -> Path:
        """Move a checkpoint in here; return where it is now.

        Raises:
            FileNotFoundError: It is gone already.
            OSError: It could not be moved; it is where it was.
        """
        make_directory(self.path)
        target = self._free_place(folder.name)
        note = Note(folder.name, reason, now_s, pin)
        with contextlib.suppress(SpaceError):  # a full disk takes no note, but the move itself needs no room
            write_file(_note_path(target), to_json(note, ASIDE_FORMAT))
        NOTED.hit()
        folder.rename(target)
        MOVED.hit()
        sync_directory(folder.parent)
        sync_directory(self.path)
        return target

    def list(self) -> tuple[Aside, ...]:
        """Return what is in here, oldest step first."""
        return tuple(sorted(self._found(), key=lambda aside: (aside.path.name, aside.path)))

    def _found(self) -> Iterator[Aside]:
        try:
            folders = [path for path in self.path.iterdir() if path.is_dir()]
        except FileNotFoundError:
            return
        for folder in folders:
            name = folder.name.partition("~")[0]
            if CheckpointName.parse(name) is None:
                continue
            try:
                note = from_json(read_file(_note_path(folder)), Note, ASIDE_FORMAT, source=folder)
            except (OSError, CorruptError):
                note = Note(name, "the reason was not recorded", 0.0)
            yield Aside(folder, note)

    def _free_place(self, name: str) -> Path:
        place = self.path / name
        number = 2
        while place.exists():  # an earlier one of the same step is here already
            place = self.path / f"{name}~{number}"
            number += 1
        return place


def aside_folders(inside: Path, preferred: Path | None) -> tuple[AsideFolder, ...]:
    """Return where to move things: the preferred folder, and one inside the checkpoints folder.

    The second one serves where the checkpoints folder is a mount of its own, which no rename leaves.
    """
    return tuple([AsideFolder(path) for path in dict.fromkeys((preferred or inside, inside))])


def take_aside(
    folders: tuple[AsideFolder, ...], folder: Path, *, reason: str, now_s: float, pin: str | None = None
) -> Path:
    """Move a checkpoint into the first of `folders` that is on its filesystem; return where it is now.

    Raises:
        FileNotFoundError: It is gone already.
        OSError: It could not be moved; it is where it was.
    """
    *others, last = folders
    for place in others:
        try:
            return place.take(folder, reason=reason, now_s=now_s, pin=pin)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
    return last.take(folder, reason=reason, now_s=now_s, pin=pin)


def give_back(aside: Aside, place: Path) -> None:
    """Move a checkpoint out of here again.

    Raises:
        OSError: It could not be moved, as something is in its place; it is where it was.
    """
    if place.exists():
        raise FileExistsError(errno.EEXIST, "there is a checkpoint of that name", str(place))
    aside.path.rename(place)
    GIVEN_BACK.hit()
    sync_directory(place.parent)
    _note_path(aside.path).unlink(missing_ok=True)
    sync_directory(aside.path.parent)


def _note_path(folder: Path) -> Path:
    return folder.with_name(folder.name + NOTE_SUFFIX)
