"""Files past the page cache: the cache stays the data loaders', and what is read is what the disk has.

Where the filesystem refuses O_DIRECT (tmpfs, some network ones), at the open or only later, the same bytes go
through the cache. Memory begins at a page; offsets and lengths are whole blocks except at the end of the
file.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import TYPE_CHECKING, Final

from trainerd.contract.regular_file import open_regular

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BLOCK_BYTES", "open_new", "open_to_read", "read_at", "write_at"]

BLOCK_BYTES: Final = mmap.PAGESIZE
"""The largest block that O_DIRECT asks for."""

_REFUSES_DIRECT: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


def open_new(path: Path) -> int:
    """Make a file to be written; it must not exist."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_DIRECT, 0o666)
    except OSError as error:
        if error.errno not in _REFUSES_DIRECT:
            raise
    path.unlink(missing_ok=True)  # some filesystems make the file before they refuse
    return os.open(path, flags, 0o666)


def open_to_read(path: Path) -> int:
    """Open a file that is no link."""
    try:
        return open_regular(path, os.O_NOFOLLOW | os.O_DIRECT)
    except OSError as error:
        if error.errno not in _REFUSES_DIRECT:
            raise
    return open_regular(path, os.O_NOFOLLOW)


def write_at(descriptor: int, piece: memoryview, offset: int) -> None:
    """Write all of a piece, in as many calls as that takes."""
    done = 0
    while done < len(piece):
        try:
            done += os.pwrite(descriptor, piece[done:], offset + done)
        except OSError as error:
            if error.errno != errno.EINVAL or not _stop_direct(descriptor):
                raise


def read_at(descriptor: int, piece: memoryview, offset: int) -> int:
    """Fill a piece; return how many bytes came: fewer than it holds only at the end of the file."""
    done = 0
    while done < len(piece):
        try:
            count = os.preadv(descriptor, [piece[done:]], offset + done)
        except OSError as error:
            if error.errno != errno.EINVAL or not _stop_direct(descriptor):
                raise
            continue
        if count == 0:
            break
        done += count
        if done % BLOCK_BYTES and offset + done >= os.fstat(descriptor).st_size:
            break  # the end: to ask again there would be refused
    return done


def _stop_direct(descriptor: int) -> bool:
    """Go on through the page cache; return whether that changes anything."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if not flags & os.O_DIRECT:
        return False
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return True
