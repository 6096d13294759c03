"""The one module through which small files become durable.

A file is written beside its final place under a temporary name, synced, renamed, and then its folder is
synced. A crash at any moment leaves the old content or the new one, and at worst a ``.tmp-`` file that
`sweep_temporary` removes. A write or fsync that failed is never retried on the same file: Linux may have
marked its pages clean, so a second fsync would report success for data that never reached the disk.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract.failpoints import declare
from trainerd.contract.regular_file import open_regular
from trainerd.errors import CorruptError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEMPORARY_INFIX: Final = ".tmp-"

OUT_OF_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Error numbers that mean room must be made, not that something broke."""

RECORD_WRITTEN = declare("record.written", "a temporary file beside the old record; swept at the next start")
RECORD_SYNCED = declare("record.synced", "a complete temporary file beside the old record; swept likewise")
RECORD_RENAMED = declare("record.renamed", "the new record, or after a power cut perhaps still the old one")
RECORD_DURABLE = declare("record.durable", "the new record")

_CHUNK_BYTES: Final = 1 << 16
_COPY_BYTES: Final = 1 << 20

SMALL_FILE_BYTES_MAX: Final = 16 << 20
"""Largest record, in bytes: a launch record holds a whole environment and command line, escaped."""

_serial = itertools.count()


def write_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Replace the content of `path` by `data`, durably: when this returns, a power cut keeps it.

    Args:
        path: The file; its folder must exist.
        data: Its new contents.
        mode: Permissions of a new file, before the umask.

    Raises:
        SpaceError: The disk is full or read-only; the old content is untouched.
        OSError: Anything else that the filesystem says; the old content is untouched.
    """
    _replace(path, lambda descriptor: write_all(descriptor, data), mode)


def renew_file(path: Path) -> None:
    """Put a copy of a file in its place, durably.

    A process that has the old one open, here or on another machine, then writes to a file without a name. A
    crash leaves the old file or the copy, which are equal.

    Raises:
        SpaceError: The disk is full or read-only; the file is untouched.
        OSError: Anything else that the filesystem says; likewise.
    """
    path = path.resolve(strict=True)

    def copy(descriptor: int) -> None:
        with path.open("rb", buffering=0) as source:
            status = os.fstat(source.fileno())
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            while chunk := source.read(_COPY_BYTES):
                write_all(descriptor, chunk)

    _replace(path, copy, 0o600)


def _replace(path: Path, fill: Callable[[int], None], mode: int) -> None:
    temporary = path.with_name(f".{path.name}{TEMPORARY_INFIX}{os.getpid()}-{next(_serial)}")
    with translated_space_errors(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            try:
                fill(descriptor)
                RECORD_WRITTEN.hit()
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            RECORD_SYNCED.hit()
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        RECORD_RENAMED.hit()
        sync_directory(path.parent)
    RECORD_DURABLE.hit()


def read_file(path: Path, *, bytes_max: int | None = SMALL_FILE_BYTES_MAX) -> bytes:
    """Return the content of a file. Never waits: a pipe or a device in its place is refused.

    Args:
        path: The file.
        bytes_max: How large it can be, in bytes; None for any size.

    Raises:
        NotRegularError: It is no file.
        CorruptError: It is larger than `bytes_max`.
        OSError: It could not be read.
    """
    descriptor = open_regular(path)
    try:
        chunks: list[bytes] = []
        length_bytes = 0
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            chunks.append(chunk)
            length_bytes += len(chunk)
            if bytes_max is not None and length_bytes > bytes_max:
                raise CorruptError(f"{path}: it is larger than {bytes_max} bytes")
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(path: Path) -> None:
    """Make the names inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path, *, mode: int = 0o777) -> None:
    """Make a folder and its missing parents, and make their names durable. An existing one is fine.

    What a link leads to is made too, if its parent is there: a run that is kept on another disk and was moved
    aside leaves such a link. Without the parent, the disk is perhaps not mounted, and nothing is made.
    """
    missing = []
    current = path
    while not current.is_dir():
        missing.append(current)
        current = current.parent
    with translated_space_errors(path):
        for name in reversed(missing):
            folder = Path(os.path.realpath(name)) if name.is_symlink() else name
            folder.mkdir(mode=mode, exist_ok=True)
            sync_directory(folder.parent)


def sweep_temporary(folder: Path) -> list[Path]:
    """Remove what an interrupted `write_file` left in `folder`; return what was removed.

    Only for the owner of the folder: another process's write in flight would lose its temporary file.
    """
    leftovers = [path for path in folder.iterdir() if TEMPORARY_INFIX in path.name and path.name[0] == "."]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers


@contextlib.contextmanager
def translated_space_errors(path: Path | str) -> Iterator[None]:
    """Turn a full or read-only disk into a SpaceError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in OUT_OF_SPACE:
            raise
        reason = os.strerror(error.errno or errno.ENOSPC)
        raise SpaceError(
            f"cannot write {path}: {reason}",
            hint="free some space or choose another folder; nothing that was there is lost",
        ) from error
