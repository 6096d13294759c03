"""When the lines of a rank's log were written: a file beside the log, as ranks write bytes without times.

Each line is ``SECONDS OFFSET``: the log ended at that offset, in bytes, when it was written to last, in
seconds since the epoch. An offset below the one before says that the log was emptied in between.
"""

from __future__ import annotations

import bisect
import contextlib
import os
from pathlib import Path
from typing import Final

TIMES_BYTES_MAX: Final = 1 << 20
"""Size from which every second entry is dropped, and most of a file that is read, in bytes."""


class LogTimesWriter:
    """Notes how far a log had been written, and when. What goes wrong with it is passed over.

    Args:
        path: Of the times.
        size_bytes_max: Size from which it is thinned out.
    """

    def __init__(self, path: Path, *, size_bytes_max: int = TIMES_BYTES_MAX) -> None:
        self._path = path
        self._size_bytes_max = size_bytes_max
        self._noted_bytes = last[1] if (last := _last_entry(path)) is not None else 0

    def note(self, written_wall_s: float, size_bytes: int) -> None:
        """Note that the log is so large, if it has changed since the last time."""
        if size_bytes == self._noted_bytes:
            return
        self._noted_bytes = size_bytes
        # A full disk, or a folder that is gone: the log is shown without times.
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                os.write(descriptor, f"{written_wall_s:.3f} {size_bytes}\n".encode())
                is_large = os.fstat(descriptor).st_size > self._size_bytes_max
            finally:
                os.close(descriptor)
            if is_large:
                self._thin()

    def restart(self) -> None:
        """Forget what was noted: the log was emptied."""
        self._noted_bytes = 0
        with contextlib.suppress(OSError):
            os.truncate(self._path, 0)

    def _thin(self) -> None:
        lines = self._path.read_bytes().splitlines(keepends=True)
        incoming = self._path.with_name(self._path.name + ".new")
        incoming.write_bytes(b"".join(lines[::-1][::2][::-1]))  # the newest one stays
        incoming.replace(self._path)


class LogTimes:
    """Tells when what stands at an offset of a log was written.

    Args:
        log: The log.
        times: The file of its times; it may be missing.
    """

    def __init__(self, log: Path, times: Path) -> None:
        self._log = log
        self._times = times
        self._mark: object = None
        self._offsets: list[int] = []
        self._walls_s: list[float] = []

    def noted(self, end: int) -> float | None:
        """Return the first time noted at which the log was so long, None if there is none yet."""
        if not self._offsets or self._offsets[-1] < end:
            self._read()
        place = bisect.bisect_left(self._offsets, end)
        return self._walls_s[place] if place < len(self._offsets) else None

    def at(self, end: int) -> float | None:
        """Return when the line that ends at an offset was written, in seconds since the epoch.

        What came after the newest note has the time of the last write. None if nothing was noted.
        """
        noted_s = self.noted(end)
        if noted_s is None and self._offsets:
            with contextlib.suppress(OSError):
                return self._log.stat().st_mtime
        return noted_s

    def _read(self) -> None:
        try:
            status = self._times.stat()
            if (mark := (status.st_ino, status.st_size, status.st_mtime_ns)) == self._mark:
                return
            self._mark = mark
            entries = _entries(self._times)
        except OSError:
            return
        self._offsets, self._walls_s = [], []
        for wall_s, offset in entries:
            if self._offsets and offset < self._offsets[-1]:
                self._offsets, self._walls_s = [], []
            self._offsets.append(offset)
            self._walls_s.append(wall_s)


def _entries(path: Path, bytes_max: int = 2 * TIMES_BYTES_MAX) -> list[tuple[float, int]]:
    """Return the entries of a file of times, from its end; lines that are none are left out."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(descriptor).st_size
        data = os.pread(descriptor, bytes_max, max(size - bytes_max, 0))
    finally:
        os.close(descriptor)
    found = []
    for line in data.split(b"\n")[:-1]:
        wall, _, offset = line.partition(b" ")
        with contextlib.suppress(ValueError):
            if offset.isdigit() and len(offset) <= 18 and 0 < (wall_s := float(wall)) < 1e11:
                found.append((wall_s, int(offset)))
    return found


def _last_entry(path: Path) -> tuple[float, int] | None:
    try:
        entries = _entries(path, 4096)
    except OSError:
        return None
    return entries[-1] if entries else None
