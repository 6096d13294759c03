"""Opening files without ever waiting: a FIFO, a device or a socket in place of a file is told, not opened.

Any user who may write into a run folder may put one there, and `open` of a FIFO waits for a writer for ever.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link",
}


class NotRegularError(OSError):
    """Something other than a file stands where a file should. Nothing was read."""

    def __init__(self, path: Path | str, mode: int) -> None:
        super().__init__(errno.EISDIR, f"is {kind_of(mode)}, not a file", str(path))


def kind_of(mode: int) -> str:
    """Return in words what a file mode stands for."""
    return _KINDS.get(stat.S_IFMT(mode), "a file")


def open_regular(path: Path, flags: int = 0) -> int:
    """Open a file to be read.

    Args:
        path: The file. A link is followed unless `flags` say otherwise.
        flags: More flags for ``open``.

    Raises:
        NotRegularError: It is no file.
        OSError: It could not be opened.
    """
    status = path.lstat() if flags & os.O_NOFOLLOW else path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise NotRegularError(path, status.st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | flags)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):  # replaced in between
        os.close(descriptor)
        raise NotRegularError(path, mode)
    return descriptor
