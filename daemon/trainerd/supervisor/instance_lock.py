"""One supervisor per state folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from trainerd.contract.durable import translated_space_errors
from trainerd.errors import LockedError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def instance_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a state folder. The kernel drops it with the process, however that ends.

    Raises:
        LockedError: Another supervisor holds it; the message names its process.
        SpaceError: The folder is full or read-only.
        UserError: The file cannot be opened.
    """
    try:
        with translated_space_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(
            f"cannot open {path}: {error.strerror}",
            hint="check who owns the state folder and its permissions",
        ) from error
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
        yield
    finally:
        os.close(descriptor)
