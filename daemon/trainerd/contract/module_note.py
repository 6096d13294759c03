"""What a training program has imported, for the standby process of the next attempt (`standby: auto`).

The program itself notes it in the run folder after its first steps. It holds the names and files of modules
that are not the user's own, marks of the files that are, and the names of the variables that the program has
changed in its own environment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract import codec
from trainerd.contract.durable import TEMPORARY_INFIX, read_file
from trainerd.contract.regular_file import NotRegularError
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

FORMAT: Final = "trainerd.modules/1"

NOTE_BYTES_MAX: Final = 4 << 20


@dataclass(frozen=True)
class OwnFile:
    """A file of the program's own code, and what it looked like.

    Attributes:
        path: Absolute path.
        modified_ns: When it was modified, in nanoseconds since the epoch.
        changed_ns: When its inode was changed.
        size_bytes: Its size.
        inode: Number of its inode.
        imports: Digest of what it decides about imports, see `import_surface`; empty if that cannot be told.
    """

    path: str
    modified_ns: int
    changed_ns: int
    size_bytes: int
    inode: int
    imports: str = ""


@dataclass(frozen=True)
class ModuleNote:
    """What an attempt has imported.

    Attributes:
        attempt: Number of the attempt.
        modules: Names and files of modules, in the order in which they were imported.
        environment: Variables that the program has changed, set or removed.
        files: Files of its own code.
    """

    attempt: int
    modules: tuple[tuple[str, ...], ...]
    environment: tuple[str, ...]
    files: tuple[OwnFile, ...]


def write_note(path: Path, note: ModuleNote) -> None:
    """Write a note, whole or not at all. It need not survive a power cut, which no standby survives either.

    Raises:
        OSError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY_INFIX}{os.getpid()}")
    try:
        temporary.write_bytes(codec.to_json(note, FORMAT))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_note(path: Path) -> ModuleNote | None:
    """Return the note of a run; None if there is none that can be read."""
    try:
        data = read_file(path, bytes_max=NOTE_BYTES_MAX)
        return codec.from_json(data, ModuleNote, FORMAT, source=str(path))
    except (CorruptError, NotRegularError, OSError):
        return None
