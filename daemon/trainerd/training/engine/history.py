"""Writes the metric history. What the lines mean is `trainerd.contract.metric_history`'s to say.

Invariants:
    Every line is written by one call, so a kill leaves whole lines and at most one torn one at the end.
    `position_bytes` is the end of the last whole line of a finished step; a checkpoint records it, after
    `sync` has made everything before it durable.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Protocol, Self

from trainerd.contract.durable import (
    renew_file,
    sync_directory,
    translated_space_errors,
    write_all,
    write_file,
)
from trainerd.contract.failpoints import declare
from trainerd.contract.metric_history import HEADER, encode_line

if TYPE_CHECKING:
    from pathlib import Path

HISTORY_SYNCED = declare(
    "history.synced", "a history that reaches as far as the checkpoint about to be written, or further"
)


class HistoryFollower(Protocol):
    """What is told of each line of a history once it is written."""

    def line(self, line: bytes) -> None:
        """Take a whole line."""
        ...

    def close(self) -> None:
        """The attempt is over."""
        ...


class HistoryWriter:
    """Appends to one run's history, once it is open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self.position_bytes = 0
        self._followers: list[HistoryFollower] = []

    def follow(self, follower: HistoryFollower) -> None:
        """Tell a follower of the lines that come."""
        self._followers.append(follower)

    def open(self) -> Self:
        """Open the file, or make it.

        One that is there is replaced by a copy first: what a former attempt that still lives appends is not
        in it then.
        """
        path = self._path
        with translated_space_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                renew_file(path)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            self.position_bytes = os.fstat(self._descriptor).st_size
            if self.position_bytes == 0:
                # A synced file whose name is not durable is lost all the same, and checkpoints count on this
                # one.
                sync_directory(path.parent)
        return self

    def replace(self, content: bytes) -> None:
        """Take a longer history of the same run. One that is not its beginning is kept beside it.

        A crash here leaves a part of it, and what was here before in ``metrics.jsonl.replaced``.
        """
        own = os.pread(self._descriptor, self.position_bytes, 0)
        if not content.startswith(own):
            write_file(self._path.with_name(f"{self._path.name}.replaced"), own)
            os.ftruncate(self._descriptor, 0)
            self.position_bytes = 0
        self._write(content[self.position_bytes :])  # followers read it from the file at the next marker
        self.sync()

    def begin(self, *, attempt: int, checkpoint: str | None, step: int, keep_bytes: int) -> None:
        """Say where this attempt goes on: nothing for the first one, a marker for every later one."""
        if self.position_bytes == 0:
            self._append(HEADER)
            if checkpoint is None:
                return  # the first attempt; otherwise the history that the checkpoint counts on is lost
        if os.pread(self._descriptor, 1, self.position_bytes - 1) != b"\n":
            self._append(b"\n")  # ends the line that a crash tore
        if self.position_bytes > len(HEADER) or checkpoint is not None:
            marker = {
                "attempt": attempt,
                "checkpoint": checkpoint,
                "step": step,
                "keep_bytes": max(keep_bytes, len(HEADER)),
            }
            self._append(encode_line({"resume": marker}))

    def row(self, record: dict[str, Any]) -> None:
        """Append one report, or anything else that is a line."""
        self._append(encode_line(record))

    def line(self, line: bytes) -> None:
        """Append one encoded line."""
        self._append(line)

    def sync(self) -> int:
        """Make all of it durable; return how many bytes that is.

        A crash here leaves lines beyond the newest checkpoint, which the next marker supersedes.
        """
        os.fsync(self._descriptor)
        HISTORY_SYNCED.hit()
        return self.position_bytes

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        while self._followers:
            self._followers.pop().close()

    def _append(self, line: bytes) -> None:
        self._write(line)
        if self._followers and line != b"\n":
            for follower in self._followers:
                follower.line(line)

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):
                write_all(self._descriptor, memoryview(line)[written:])
        except OSError as error:
            # A part of the line may be there, and this line may be tried again.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.position_bytes)
            with translated_space_errors(self._path):
                raise error  # noqa: TRY201 - translated only now: every step comes by here
        self.position_bytes += len(line)
