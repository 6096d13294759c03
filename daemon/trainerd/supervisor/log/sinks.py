"""Where log lines go: a rotated file and a stream, neither of which can stop or end the supervisor.

Invariants: `write` never raises for what the outside world does, and never waits for a reader or for room. A
line that could not be written is counted; the first line that goes through again is preceded by one that says
how many were lost. A line torn by a full disk or a crash is ended before the next one begins.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE_BYTES_MAX: Final = 32 * 1024**2
"""Size at which a log file is rotated, in bytes."""
FILES_MAX: Final = 5
"""How many files there are in all, the current one included."""

_PIPE_BYTES: Final = select.PIPE_BUF
"""A pipe that is ready takes at least this many bytes without waiting."""
_READER_WAIT_MS: Final = 100
"""How long a line waits for a reader who has kept up so far; one who has not gets no time at all."""
RECONNECT_S: Final = 1.0
"""Between two tries to reach a reader that has left, in seconds."""


class Sink(Protocol):
    """Somewhere that lines go."""

    def write(self, line: bytes) -> None:
        """Take one line, newline included. Never raises, never waits long."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class RotatedFile:
    """Appends to a file and moves it aside when it is full: ``x.jsonl`` to ``x.jsonl.1``, and so on.

    Args:
        path: The file; its folder is made when missing.
        lost_line: Makes the line that says how many were lost.
        bytes_max: Size at which it is rotated, in bytes.
        files_max: How many files to keep, this one included.
    """

    def __init__(
        self,
        path: Path,
        lost_line: Callable[[int], bytes],
        *,
        bytes_max: int = FILE_BYTES_MAX,
        files_max: int = FILES_MAX,
    ) -> None:
        self._path = path
        self._lost_line = lost_line
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._descriptor: int | None = None
        self._is_torn = False
        self._lost = 0

    def write(self, line: bytes) -> None:
        if self._lost:
            line = self._lost_line(self._lost) + line
        try:
            self._append(line)
        except OSError:
            # A full, read-only or vanished disk. The next line tries again, with a new descriptor.
            self._lost += 1
            self.close()
        else:
            self._lost = 0

    def close(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _append(self, line: bytes) -> None:
        descriptor = self._opened()
        size = os.fstat(descriptor).st_size
        if size and size + len(line) > self._bytes_max:
            self._rotate()
            descriptor = self._opened()
        if self._is_torn:
            line = b"\n" + line
        if os.write(descriptor, line) < len(line):
            raise OSError(f"{self._path}: only a part of the line was taken")
        self._is_torn = False

    def _opened(self) -> int:
        """Return a descriptor of the file that has our name now; a deleted or replaced one is let go."""
        if self._descriptor is not None and not self._is_ours(self._descriptor):
            self.close()
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            # A fifo put in the place of the log must not make us wait for its reader.
            self._descriptor = os.open(self._path, flags | os.O_NONBLOCK, 0o640)
            self._is_torn = _ends_torn(self._descriptor)
        return self._descriptor

    def _is_ours(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        """Move each file one number up; the one that had the last number is replaced.

        A crash between two renames leaves a number unused. A folder that refuses leaves the file growing,
        which loses nothing.
        """
        numbered = [self._path, *(self._numbered(number) for number in range(1, self._files_max))]
        with contextlib.suppress(OSError):
            for older, newer in zip(reversed(numbered), reversed(numbered[:-1]), strict=False):
                if newer.exists():
                    newer.replace(older)
        if self._files_max == 1:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class Stream:
    """Writes to a descriptor that another process reads: a terminal, a pipe, a socket of the service manager.

    Args:
        descriptor: The open descriptor; it is left open, with its flags as they are.
        lost_line: Makes the line that says how many were lost.
        reconnect: Puts another connection in the place of the descriptor when its reader has left, or raises
            OSError; None where there is none to be had.
    """

    def __init__(
        self,
        descriptor: int,
        lost_line: Callable[[int], bytes],
        reconnect: Callable[[], None] | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._lost_line = lost_line
        self._reconnect = reconnect
        self._reconnect_after_s = 0.0
        self._is_gone = False
        self._is_torn = False
        self._lost = 0
        self._own: int | None = None
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:  # closed by the process that started us
            self._is_gone, mode = True, 0
        self._is_regular = stat.S_ISREG(mode)
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            # O_NONBLOCK belongs to the open file, which the shell and others share: open one of our own.
            with contextlib.suppress(OSError):
                path = f"/proc/self/fd/{descriptor}"
                self._own = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                self._descriptor = self._own

    def write(self, line: bytes) -> None:
        if self._is_gone:
            return
        head = b"\n" if self._is_torn else b""
        head += self._lost_line(self._lost) if self._lost else b""
        try:
            self._push(head + line)
        except BlockingIOError:
            self._lost += 1
        except OSError:
            # No reader any more, or a full disk. Either may come back: a pipe with a name gets another
            # reader, journald is started again, room is made.
            self._lost += 1
            self._try_another_connection(line)
        else:
            self._lost = 0

    def _try_another_connection(self, line: bytes) -> None:
        now_s = time.monotonic()
        if self._reconnect is None or now_s < self._reconnect_after_s:
            return
        self._reconnect_after_s = now_s + RECONNECT_S
        with contextlib.suppress(OSError):
            self._reconnect()
            self._is_torn = False
            # This line is sent again; those before it are lost.
            head = self._lost_line(self._lost - 1) if self._lost > 1 else b""
            self._push(head + line)
            self._lost = 0

    def close(self) -> None:
        if self._own is not None:
            os.close(self._own)
        self._own, self._is_gone = None, True

    def _push(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if not self._is_regular and not self._is_ready():
                raise BlockingIOError
            taken = os.write(self._descriptor, view if self._is_regular else view[:_PIPE_BYTES])
            view = view[taken:]
            self._is_torn = bool(view)

    def _is_ready(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(0 if self._lost else _READER_WAIT_MS))


def _ends_torn(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
