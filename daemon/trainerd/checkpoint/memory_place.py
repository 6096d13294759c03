"""The place in memory of a run: a folder on a tmpfs in which copies of its newest boundary lie.

What is there survives the processes of the run, and not the machine. A record in the checkpoints folder says
where it is.

Invariants:
    The folder has a random name that no other run has, and only the record leads to it. Without the record,
    as in a run that begins again or was rolled back, what is in the folder is never looked at.
    The record is good in the checkpoints folder that it was made for and in this boot: a copy of the run, and
    the run after a restart of the machine, have no place in memory.
    Nothing is written, read or removed in a folder that is not this user's alone, or not on a tmpfs.
    The folder names the checkpoints folder that it was made for, so that one that nothing leads to is told.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import MEMORY_NAME
from trainerd.checkpoint.committed import place_of
from trainerd.checkpoint.listing import checkpoint_folders
from trainerd.contract import codec
from trainerd.contract.durable import read_file, write_file
from trainerd.contract.process import boot_id
from trainerd.errors import CorruptError, TrainerdError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "DEFAULT_BASE",
    "MemoryRecord",
    "discard_memory",
    "memory_place",
    "newest_in_memory",
    "places_left",
    "take_place",
]

FORMAT: Final = "trainerd.memory/1"
RECORD_BYTES_MAX: Final = 1 << 16
BEGINNING_S: Final = 60.0
"""How old a place must be that does not say whose it is, to be one that is left, in seconds."""
DEFAULT_BASE: Final = Path("/dev/shm")  # noqa: S108 - a folder of mode 0700 is made in it
OWNER_NAME: Final = ".run"
"""File in a place that holds the path of the checkpoints folder that it was made for."""
MOUNTS: Final = Path("/proc/self/mountinfo")

_TOKEN: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class MemoryRecord:
    """Where the place in memory of a run is.

    Attributes:
        place: The folder.
        boot_id: Of the boot in which it was made.
        device: Of the checkpoints folder that it belongs to.
        inode: Likewise.
    """

    place: str
    boot_id: str
    device: int
    inode: int


def take_place(directory: Path, base: Path, *, kind_of: Callable[[Path], str] | None = None) -> Path:
    """Return the place in memory of a run; make it if there is none.

    Args:
        directory: The checkpoints folder of the run.
        base: Folder on a tmpfs in which the places of all runs lie.
        kind_of: Returns the type of the filesystem of a folder.

    Raises:
        UserError: There can be none; the message says why.
        SpaceError: The disk is full.
    """
    found = memory_place(directory)
    if found is not None and found.parent.parent == base:
        return found
    discard_memory(directory)
    place = base / _folder_of_user() / os.urandom(16).hex()
    try:
        place.parent.mkdir(mode=0o700, exist_ok=True)
        _check_own(place.parent)
        place.mkdir(mode=0o700)
        _check_own(place)
        kind = (kind_of or _filesystem)(place)
    except OSError as error:
        raise UserError(f"{error.filename or base}: {error.strerror}") from error
    if kind != "tmpfs":
        place.rmdir()
        raise UserError(f"{base} is not a tmpfs but {kind or 'unknown'}: it may not be memory")
    (place / OWNER_NAME).write_bytes(os.fsencode(directory.absolute()))
    status = directory.stat()
    record = MemoryRecord(str(place), boot_id(), status.st_dev, status.st_ino)
    write_file(directory / MEMORY_NAME, codec.to_json(record, FORMAT))
    return place


def memory_place(directory: Path) -> Path | None:
    """Return the place in memory of a run, None if it has none that is good here and now.

    Args:
        directory: The checkpoints folder of the run.
    """
    with contextlib.suppress(OSError, CorruptError, UserError, RecursionError):
        data = read_file(directory / MEMORY_NAME, bytes_max=RECORD_BYTES_MAX)
        record = codec.from_json(data, MemoryRecord, FORMAT, source=directory / MEMORY_NAME)
        status, place = directory.stat(), Path(record.place)
        is_ours = (record.device, record.inode, record.boot_id) == (status.st_dev, status.st_ino, boot_id())
        is_named_so = place.parent.name == _folder_of_user() and _TOKEN.fullmatch(place.name) is not None
        if is_ours and is_named_so and place.is_absolute():
            _check_own(place.parent)
            _check_own(place)
            return place
    return None


def discard_memory(directory: Path) -> None:
    """Remove what a run has in memory, and the record of it. Does nothing where there is none.

    Args:
        directory: The checkpoints folder of the run.
    """
    place = memory_place(directory)
    with contextlib.suppress(OSError):
        (directory / MEMORY_NAME).unlink(missing_ok=True)  # first: nothing leads to the rest then
    if place is not None:
        shutil.rmtree(place, ignore_errors=True)  # its parent stays: another run may begin at this moment


def places_left(base: Path) -> Iterator[tuple[Path, Path | None]]:
    """Yield the places in memory of this user that no run leads to, and whose checkpoints folders they were.

    What a run that was killed has left is not among them while the run is there: it would go on from it.

    Args:
        base: Folder on a tmpfs in which the places of all runs lie.
    """
    folder = base / _folder_of_user()
    with contextlib.suppress(OSError, UserError):
        _check_own(folder)
        for place in sorted(folder.iterdir()):
            with contextlib.suppress(OSError):
                owner = _owner_of(place)
                if owner is None and time.time() - place.lstat().st_mtime < BEGINNING_S:
                    continue  # it is being made
                if owner is None or memory_place(owner) != place:
                    yield place, owner


def _owner_of(place: Path) -> Path | None:
    with contextlib.suppress(OSError, CorruptError, UserError):
        return Path(os.fsdecode(read_file(place / OWNER_NAME, bytes_max=RECORD_BYTES_MAX)))
    return None


def newest_in_memory(directory: Path) -> int | None:
    """Return the step of the newest copy that a run has in memory, None if it has none. Reads no data.

    Args:
        directory: The checkpoints folder of the run.
    """
    place = memory_place(directory)
    if place is None:
        return None
    try:
        folders = checkpoint_folders(place)
    except (OSError, TrainerdError):
        return None
    return place_of(folders[-1]).step if folders else None


def _folder_of_user() -> str:
    return f"trainerd-{os.geteuid()}"


def _check_own(folder: Path) -> None:
    """Return if a folder is no link and belongs to this user alone.

    Raises:
        UserError: It is not so.
        OSError: It cannot be looked at.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise UserError(f"{folder} is not a folder")
    if status.st_uid != os.geteuid():
        raise UserError(f"{folder} belongs to another user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise UserError(f"{folder} is open to other users: chmod 700 {folder}")


def _filesystem(folder: Path) -> str:
    """Return the type of the filesystem that a folder is on, empty if it is not known."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in MOUNTS.read_text("utf-8", "surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return ""
