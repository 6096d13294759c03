"""The log of one rank, to which the rank itself appends.

Invariants: the rank writes to the file, never to a pipe, so no reader's death can stop it. The shim keeps the
file open, so it can bound what a log deleted by hand takes on the disk. Nothing that goes wrong with a log is
ever a reason not to train.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract.log_times import LogTimesWriter
from trainerd.contract.paths import log_times_path
from trainerd.contract.records import RANK_LOG_BYTES_MAX, RANK_LOG_COPIES
from trainerd.shim.notes import note

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE_BYTES_MAX: Final = RANK_LOG_BYTES_MAX
KEPT: Final = RANK_LOG_COPIES

LOOK_S_MIN: Final = 0.05
LOOK_S_MAX: Final = 1.0
"""A log is looked at as often as its rank fills it, within these bounds, in seconds."""

_SLACK: Final = 4
"""A copy takes in what is written while it is made, up to this part of the limit."""

_CHUNK_BYTES: Final = 1 << 20


class RankLog:
    """Opens, announces and rotates one log.

    Args:
        path: Where; missing folders are made.
        size_bytes_max: Size from which it is rotated.
        copies: How many rotated copies are kept.
    """

    def __init__(self, path: Path, *, size_bytes_max: int = SIZE_BYTES_MAX, copies: int = KEPT) -> None:
        self.path = path
        self._size_bytes_max = size_bytes_max
        self._copies = copies
        self._looked: tuple[float, int] | None = None
        self._has_complained = False
        self._times = LogTimesWriter(log_times_path(path))
        self.descriptor = self._open()
        self.note_times()  # what came after the last look of a shim that was killed

    def _open(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Not to wait for a reader, should another process have put a pipe there.
            descriptor = os.open(
                self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666
            )
        except OSError as error:
            return self._give_up(str(error))
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return self._give_up("it is a pipe, whose reader could stop the job")
        os.set_blocking(descriptor, True)
        return descriptor

    def _give_up(self, why: str) -> int:
        note(f"{self.path} cannot be opened, this rank's output is lost: {why}")
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def say(self, line: str) -> None:
        """Append one line of the shim's own, on a line of its own."""
        with contextlib.suppress(OSError):
            size_bytes = os.fstat(self.descriptor).st_size
            is_torn = size_bytes > 0 and os.pread(self.descriptor, 1, size_bytes - 1) != b"\n"
            os.write(self.descriptor, ("\n" if is_torn else "").encode() + line.encode() + b"\n")
        self.note_times()

    def next_look_s(self, now_s: float) -> float:
        """Return when to look at it again, in seconds: about when it is full, as fast as it has grown."""
        try:
            size_bytes = os.fstat(self.descriptor).st_size
        except OSError:
            return LOOK_S_MAX
        self.note_times()
        before, self._looked = self._looked, (now_s, size_bytes)
        if before is None or now_s <= before[0] or size_bytes <= before[1]:
            return LOOK_S_MAX
        bytes_per_s = (size_bytes - before[1]) / (now_s - before[0])
        return min(max((self._size_bytes_max - size_bytes) / bytes_per_s, LOOK_S_MIN), LOOK_S_MAX)

    def note_times(self) -> None:
        """Note how long the log is, and when it was written to last."""
        with contextlib.suppress(OSError):
            status = os.fstat(self.descriptor)
            if stat.S_ISREG(status.st_mode):
                self._times.note(status.st_mtime, status.st_size)

    def rotate_if_large(self) -> bool:
        """Copy a large log aside and truncate it; return whether that was done.

        The rank appends at any moment: what it writes between the end of the copy and the truncation, a few
        microseconds, is lost. A crash in between leaves lines twice, in the copy and in the log.
        """
        try:
            status = os.fstat(self.descriptor)
            if status.st_size < self._size_bytes_max:
                return False
            if status.st_nlink and self._copies:
                self._copy_aside()
            os.ftruncate(self.descriptor, 0)
            self._times.restart()
        except OSError as error:
            if not self._has_complained:
                note(f"{self.path} cannot be rotated: {error}")
            self._has_complained = True
            return False
        return True

    def _copy_aside(self) -> None:
        copies = rotated_paths(self.path, self._copies)
        incoming = self.path.with_name(self.path.name + ".rotating")
        try:
            with incoming.open("wb") as file:
                # A rank may write faster than this looks, and faster than it copies: what is kept is bounded.
                end = os.fstat(self.descriptor).st_size
                offset = max(end - self._size_bytes_max, 0)
                if offset:
                    file.write(f"--- {offset} bytes before this were dropped: the log is full ---\n".encode())
                end += self._size_bytes_max // _SLACK
                while chunk := os.pread(self.descriptor, min(_CHUNK_BYTES, end - offset), offset):
                    file.write(chunk)
                    offset += len(chunk)
            for older, newer in zip(reversed(copies), reversed(copies[:-1]), strict=False):
                with contextlib.suppress(FileNotFoundError):
                    newer.replace(older)
            incoming.replace(copies[0])
        except OSError:
            incoming.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        self.note_times()
        os.close(self.descriptor)


def rotated_paths(path: Path, copies: int = KEPT) -> Sequence[Path]:
    """Return where the rotated copies of a log are, newest first."""
    return [Path(f"{path}.{number}") for number in range(1, copies + 1)]
