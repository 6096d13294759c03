"""Reads the journal of a supervisor that does not run, without touching it.

SQLite locks what it reads, and makes files beside a database in WAL mode. So the journal is copied, with what
its log holds, and the copy is read.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.errors import TrainerdError, TryAgainError
from trainerd.supervisor.journal.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator

COPY_TRIES: Final = 5
"""How often a journal that changes while it is copied is copied again."""


@contextlib.contextmanager
def journal_copy(path: Path) -> Iterator[Journal]:
    """Open a copy of a journal; it is deleted afterwards.

    Raises:
        UserError: A newer trainerd wrote it.
        CorruptError: It is damaged.
        TryAgainError: A supervisor writes to it.
        OSError: It cannot be read, or not be copied.
    """
    with tempfile.TemporaryDirectory(prefix="trainerd-journal-") as folder:
        copy = Path(folder) / path.name
        _copy(path, copy)
        try:
            journal = Journal(copy)
        except TrainerdError as error:
            # What was found in the copy is in the original.
            error.message = error.message.replace(str(copy), str(path))
            error.hint = error.hint and error.hint.replace(str(copy), str(path))
            raise
        with contextlib.closing(journal):
            yield journal


def _copy(path: Path, copy: Path) -> None:
    files = (path, path.with_name(f"{path.name}-wal"))
    for _ in range(COPY_TRIES):
        before = [file_mark(file) for file in files]
        contents = [
            file.read_bytes() if mark is not None else None for file, mark in zip(files, before, strict=True)
        ]
        if before == [file_mark(file) for file in files]:
            break
    else:
        raise TryAgainError(
            f"{path} changes while it is read", hint="a supervisor seems to be starting: try again"
        )
    for file, content in zip(files, contents, strict=True):
        if content is not None:
            copy.with_name(file.name).write_bytes(content)


def file_mark(file: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is written, None if there is none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
