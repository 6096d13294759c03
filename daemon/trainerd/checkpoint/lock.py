"""The writers' lock of a checkpoints folder: one process at a time.

A POSIX record lock, because the others are inherited: data-loading workers are forked from the training
process, and one that outlives it must not keep the next attempt out. Its price is that a process loses it by
closing *any* descriptor of the file, so this module alone opens the file, and never twice in one process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import LOCK_NAME
from trainerd.contract.durable import make_directory, read_file, translated_space_errors
from trainerd.contract.process import boot_id
from trainerd.contract.regular_file import kind_of
from trainerd.errors import CorruptError, LockedError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["drop_lock_of_elsewhere", "holds_lock", "is_locked_elsewhere", "writers_lock"]

POLL_S: Final = 0.05
_HOLDER_BYTES_MAX: Final = 4096
_MOVE_HINT: Final = "move it away: the lock is made again"

_held: dict[tuple[int, int], int] = {}
"""The lock files (device and inode) that are held, each with the process that holds it: a child inherits this
table and not the locks."""


@contextlib.contextmanager
def writers_lock(directory: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a folder. The kernel drops it with the process, however that ends.

    Args:
        directory: The checkpoints folder; made if it is missing.
        wait_s: How long to wait for another holder, in seconds.

    Raises:
        LockedError: Another process holds it; the message says which.
        SpaceError: The disk is full or read-only.
        UserError: Something other than a file has the lock's name.
    """
    make_directory(directory)
    path = directory / LOCK_NAME
    key = _identity(path)
    if _held.get(key) == os.getpid():
        raise LockedError(
            f"{directory} is being written by this very process already",
            hint="close the first Checkpointer or session before opening a second one on the same folder",
        )
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _acquire(descriptor, directory, deadline_s=time.monotonic() + wait_s)
        _held[key] = os.getpid()
        _say_who(descriptor, path)
        yield
    finally:
        if _held.get(key) == os.getpid():
            del _held[key]
        os.close(descriptor)


def holds_lock(directory: Path) -> bool:
    """Return whether this process holds the lock of a folder."""
    try:
        status = (directory / LOCK_NAME).stat()
    except OSError:
        return False
    return _held.get((status.st_dev, status.st_ino)) == os.getpid()


def is_locked_elsewhere(directory: Path) -> bool:
    """Return whether another process holds the lock of a folder that a process of another boot took last."""
    if not _is_of_another_boot(directory / LOCK_NAME):
        return False
    try:
        with writers_lock(directory):
            return False
    except LockedError:
        return True


def drop_lock_of_elsewhere(directory: Path) -> None:
    """Remove the lock of a folder that a process of another boot took last; the next writer makes one."""
    path = directory / LOCK_NAME
    if _is_of_another_boot(path):
        path.unlink(missing_ok=True)


def _is_of_another_boot(path: Path) -> bool:
    try:
        lines = read_file(path, bytes_max=_HOLDER_BYTES_MAX).decode(errors="replace").splitlines()
    except (OSError, CorruptError):
        return False
    return len(lines) > 1 and lines[1].startswith("boot ") and lines[1] != f"boot {boot_id()}"


def _identity(path: Path) -> tuple[int, int]:
    """Make the file if it is missing, without opening one that is there.

    Closing it would drop our own lock.
    """
    with translated_space_errors(path), contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"cannot lock {path}: {error.strerror}", hint=_MOVE_HINT) from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"cannot lock {path}: it is {kind_of(status.st_mode)}, not a file", hint=_MOVE_HINT)
    return status.st_dev, status.st_ino


def _acquire(descriptor: int, directory: Path, *, deadline_s: float) -> None:
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
            if time.monotonic() >= deadline_s:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").partition("\n")[0] or "unknown"
                raise LockedError(
                    f"{directory} is being written by another process ({holder})",
                    hint="wait until it has ended, stop it, or give this run a folder of its own",
                ) from error
            time.sleep(POLL_S)
        else:
            return


def _say_who(descriptor: int, path: Path) -> None:
    # For people, and for a takeover from another machine. Whether the lock is held only the kernel says, so a
    # torn write does no harm, nor does a full disk.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        text = f"pid {os.getpid()} on {socket.gethostname()}\nboot {boot_id()}\n"
        os.pwrite(descriptor, text.encode(), 0)
        os.utime(path)
