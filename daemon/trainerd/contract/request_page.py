"""What is asked of a running attempt: one page of shared memory that each rank looks at.

Checkpoints are counted, and the number only grows: a request is a higher number than the rank has seen, so
none is lost and none is answered twice. A look at it on every step costs a fraction of a microsecond.

A stop is asked for once and for good, by the number of the signal that says the same. A rank hears it here
where it cannot hear the signal: its session is in a thread, or a library has taken over the signal.

Layout, little-endian: magic ``TRNDRQ01``, checkpoints asked for u64, signal that asks for a stop u64 (0: none
does). A page of an earlier version has zeros in place of what it does not know.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
import struct
from typing import TYPE_CHECKING, Final

from trainerd.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

PAGE_BYTES: Final = 4096
_MAGIC: Final = b"TRNDRQ01"
_COUNTER: Final = struct.Struct("<Q")
_CHECKPOINTS_AT: Final = len(_MAGIC)
_STOP_AT: Final = _CHECKPOINTS_AT + _COUNTER.size


class RequestPage:
    """A rank's view of the page. Made by the rank, before it begins to train."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.posix_fallocate(descriptor, 0, PAGE_BYTES)  # not sparse: see the heartbeat
            self._page = mmap.mmap(descriptor, PAGE_BYTES)
        finally:
            os.close(descriptor)
        self._page[: len(_MAGIC)] = _MAGIC
        self._answered = self._asked()

    def take_checkpoint_request(self) -> bool:
        """Tell whether a checkpoint was asked for since the last call."""
        asked = self._asked()
        is_new = asked != self._answered
        self._answered = asked
        return is_new

    def stop_signal(self) -> int | None:
        """Return the number of the signal that asks for a stop, None if no stop was asked for."""
        return int(_COUNTER.unpack_from(self._page, _STOP_AT)[0]) or None

    def close(self) -> None:
        self._page.close()

    def _asked(self) -> int:
        return int(_COUNTER.unpack_from(self._page, _CHECKPOINTS_AT)[0])


def ask_for_checkpoint(path: Path) -> None:
    """Ask the rank behind a page to save at its next step boundary.

    Raises:
        UserError: No rank listens there: none has made the page.
        OSError: The page could not be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UserError(
            "this attempt takes no requests",
            hint="it is not inside a trainerd.session() yet, or its script does not use one",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # two who ask at once ask twice
        if os.pread(descriptor, len(_MAGIC), 0) != _MAGIC:
            raise UserError(f"{path} is not a page of requests")
        (asked,) = _COUNTER.unpack(os.pread(descriptor, _COUNTER.size, _CHECKPOINTS_AT))
        os.pwrite(descriptor, _COUNTER.pack(asked + 1), _CHECKPOINTS_AT)
    finally:
        os.close(descriptor)


def ask_to_stop(path: Path, signum: int) -> bool:
    """Ask all ranks of an attempt to save and leave, and those that come later. Never waits.

    The page is made if no rank has made it yet.

    Args:
        path: The page.
        signum: Number of the signal by which the same is asked for.

    Returns:
        Whether this is the first such request. A later one changes nothing.

    Raises:
        UserError: Something else stands there.
        OSError: The page could not be written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if not is_file or os.pread(descriptor, len(_MAGIC), 0) not in {b"", bytes(len(_MAGIC)), _MAGIC}:
            raise UserError(f"{path} is not a page of requests")
        before = os.pread(descriptor, _COUNTER.size, _STOP_AT)
        if len(before) == _COUNTER.size and _COUNTER.unpack(before)[0]:
            return False
        os.pwrite(descriptor, _MAGIC, 0)
        os.pwrite(descriptor, _COUNTER.pack(signum), _STOP_AT)
    finally:
        os.close(descriptor)
    return True
