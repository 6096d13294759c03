"""One supervisor per state folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from trainerd.contract.durable import translated_space_errors
from trainerd.errors import LockedError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def instance_lock(path: Path, held: int | None = None) -> Iterator[int]:
    """Hold the lock of a state folder. The kernel drops it with the process, however that ends.

    Args:
        path: The file that is locked.
        held: Descriptor by which the program before this one, in the same process, holds it already.

    Yields:
        The descriptor by which it is held.

    Raises:
        LockedError: Another supervisor holds it; the message names its process.
        SpaceError: The folder is full or read-only.
        UserError: The file cannot be opened.
    """
    descriptor = held if held is not None and _is_same(held, path) else _open(path)
    if held not in {None, descriptor}:
        os.close(held)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise LockedError(
                f"{path.parent}: another supervisor (process {holder}) runs on this state folder",
                hint="talk to that one with the other verbs, stop it, or give this one another --state",
            ) from error
        with translated_space_errors(path):
            # Only for people: the lock itself is what counts, so a torn write does no harm.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def is_replaced(descriptor: int, path: Path) -> bool:
    """Return whether another file has the name of the one that is open: another process has taken over.

    Raises:
        OSError: It cannot be seen now. That is no evidence of a takeover.
    """
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    try:
        return not os.path.samestat(os.fstat(descriptor), named)
    except OSError as error:
        if error.errno == errno.ESTALE:  # another machine has removed the open one
            return True
        raise


def _open(path: Path) -> int:
    try:
        with translated_space_errors(path):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(
            f"cannot open {path}: {error.strerror}",
            hint="check who owns the state folder and its permissions",
        ) from error


def _is_same(descriptor: int, path: Path) -> bool:
    """Return whether the file that is open is the one of that name: it may have been replaced."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
