"""Room on the disk: known before a save begins, and a little of it kept for an emergency."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import RESERVE_NAME
from trainerd.contract.durable import OUT_OF_SPACE
from trainerd.contract.failpoints import declare
from trainerd.errors import SpaceError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MARGIN_BYTES", "free_bytes", "make_reserve", "release_reserve", "shortage_error"]

MARGIN_BYTES: Final = 16 * 1024 * 1024
"""What a save leaves free, in bytes: for logs, records and the filesystem's own."""

MADE = declare("reserve.made", "a reserve file, perhaps of less than its size; completed at the next start")
RELEASED = declare("reserve.released", "no reserve file; made again at the next start")


def free_bytes(directory: Path) -> int:
    """Return how many bytes an ordinary user may still write there.

    Raises:
        OSError: It cannot be known.
    """
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def make_reserve(directory: Path, size_bytes: int) -> bool:
    """Occupy some room that an emergency save may have; return whether there was room for it.

    Raises:
        OSError: Anything but a full disk.
    """
    path = directory / RESERVE_NAME
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        return False  # not ours, and opening it could wait for ever
    # To be read as well: where a filesystem cannot allocate, the C library reads and writes a byte a block.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if os.fstat(descriptor).st_size > size_bytes:
            os.ftruncate(descriptor, size_bytes)
        if size_bytes:
            os.posix_fallocate(descriptor, 0, size_bytes)
        MADE.hit()
    except OSError as error:
        if error.errno not in OUT_OF_SPACE:
            raise
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(descriptor)
    return True


def release_reserve(directory: Path) -> int:
    """Give the reserved room back; return how many bytes that were."""
    path = directory / RESERVE_NAME
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return 0
        size = status.st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    RELEASED.hit()
    return size


def shortage_error(directory: Path, *, needed_bytes: int, available_bytes: int) -> SpaceError:
    """Return the error that says how much is missing where."""
    return SpaceError(
        f"cannot checkpoint to {directory}: it needs {_mebibytes(needed_bytes)} and "
        f"{_mebibytes(MARGIN_BYTES)} to spare, {_mebibytes(available_bytes)} are free",
        hint="free some space, keep fewer checkpoints, or choose another folder; nothing that was "
        "there is lost",
    )


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f} MiB"
