"""What is asked of a running attempt: one page of shared memory that the rank looks at on every step.

A look costs a fraction of a microsecond. The page holds counters that only grow: a request is a higher number
than the rank has seen, so none is lost and none is answered twice.

Layout, little-endian: magic ``TRNDRQ01``, checkpoints asked for u64.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from typing import TYPE_CHECKING, Final

from trainerd.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

PAGE_BYTES: Final = 4096
_MAGIC: Final = b"TRNDRQ01"
_COUNTER: Final = struct.Struct("<Q")
_CHECKPOINTS_AT: Final = len(_MAGIC)


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

    def close(self) -> None:
        self._page.close()

    def _asked(self) -> int:
        return int(_COUNTER.unpack_from(self._page, _CHECKPOINTS_AT)[0])


def ask_for_checkpoint(path: Path) -> None:
    """Ask the rank behind a page to save at its next step boundary.

    Raises:
        UserError: Nobody listens there: no rank has made the page.
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
