"""Reads the end of a log file, and what is added to it, over truncation, deletion and replacement.

Invariant: everything before `_offset` of the open file was handed out, and `_tail` holds its last bytes. A
file that is shorter than that, or has other bytes there, was truncated by copy-truncate and is read from its
start.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

CHUNK_BYTES: Final = 1024 * 1024
"""Most that is handed out at once."""

_BLOCK_BYTES: Final = 64 * 1024
_TAIL_BYTES: Final = 64


class FollowedFile:
    """A log file that others write.

    Args:
        path: Where; it need not exist yet.
        lines: How many of the lines that are there now to hand out; None is all of them.
    """

    def __init__(self, path: Path, *, lines: int | None = None) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._offset = 0
        self._tail = b""
        self.begin = 0
        """Where in the file what was handed out last begins."""
        self._open_if_replaced()
        if lines is not None:
            self._skip_to_last(lines)

    def read_new(self) -> bytes:
        """Return what was added since the last call, at most `CHUNK_BYTES`; empty if nothing was.

        A deleted file is read on for as long as no other has taken its place: its writers still have it.

        Raises:
            OSError: It is there and cannot be read.
        """
        data = self._read()
        if not data and self._open_if_replaced():
            data = self._read()
        return data

    @property
    def end(self) -> int:
        """Where in the file what was handed out last ends."""
        return self._offset

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def _skip_to_last(self, lines: int) -> None:
        if self._descriptor is not None:
            self._offset = last_lines_offset(self._descriptor, lines)
            self._tail = self._before(self._offset)

    def _read(self) -> bytes:
        if self._descriptor is None:
            return b""
        size = os.fstat(self._descriptor).st_size
        if size < self._offset or self._before(self._offset) != self._tail:
            self._offset, self._tail = 0, b""
        data = os.pread(self._descriptor, CHUNK_BYTES, self._offset)
        self.begin = self._offset
        self._offset += len(data)
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        return data

    def _before(self, offset: int) -> bytes:
        assert self._descriptor is not None
        begin = max(0, offset - _TAIL_BYTES)
        return os.pread(self._descriptor, offset - begin, begin)

    def _open_if_replaced(self) -> bool:
        """Open the file that has our name now, if it is another file; return whether it is."""
        with contextlib.suppress(FileNotFoundError):
            if self._descriptor is not None and os.path.samestat(
                os.fstat(self._descriptor), self.path.stat()
            ):
                return False
            # O_NONBLOCK: a fifo in its place must not make us wait.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            self.close()
            self._descriptor, self._offset, self._tail = descriptor, 0, b""
            return True
        return False


def last_lines_offset(descriptor: int, lines: int) -> int:
    """Return where the last `lines` lines of a file begin; a last line without its newline is one too."""
    end = os.fstat(descriptor).st_size
    if lines == 0:
        return end
    wanted = lines + 1 if end and os.pread(descriptor, 1, end - 1) == b"\n" else lines
    while end > 0:
        begin = max(0, end - _BLOCK_BYTES)
        block = os.pread(descriptor, end - begin, begin)
        position = len(block)
        while wanted and (position := block.rfind(b"\n", 0, position)) >= 0:
            wanted -= 1
        if wanted == 0:
            return begin + position + 1
        end = begin
    return 0
