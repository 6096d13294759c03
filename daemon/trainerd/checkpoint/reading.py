"""Who reads a checkpoint keeps it from being pruned under their hands.

A reader holds a shared `flock` on the folder itself: that needs no right to write, leaves nothing behind, and
ends with the process. The pruner asks for the exclusive one, without waiting, before it renames. Filesystems
that know no such lock on a folder (some network ones) give readers no protection; a reader then finds files
missing, says so, and nothing worse.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["is_being_read", "reading", "undisturbed"]

_NO_SUCH_LOCKS: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Keep a checkpoint from being pruned for as long as this is held.

    Raises:
        FileNotFoundError: It is gone.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _where_locks_are_known():
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        # Between the open and the lock it may have been renamed away; then this is a lock on nothing.
        if not _is_still(folder, descriptor):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def undisturbed(folder: Path) -> Iterator[bool]:
    """Keep readers out while a checkpoint is renamed away. Yields False, at once, if it is being read.

    Raises:
        FileNotFoundError: It is gone.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        is_free = True
        with _where_locks_are_known():
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                is_free = False
        yield is_free
    finally:
        os.close(descriptor)


def is_being_read(folder: Path) -> bool:
    """Return whether a process reads a checkpoint now. One that is gone is not being read."""
    try:
        with undisturbed(folder) as is_free:
            return not is_free
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _where_locks_are_known() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SUCH_LOCKS:
            raise


def _is_still(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
