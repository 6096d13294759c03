"""Records which files of compiled code are whole, for the next attempt: see `contract.compiled_code`.

Invariants:
    A file is recorded as it is while no build is in progress: torch builds under a lock of a file, and the
    files that were there before all of these locks were found free are complete.
    Rank 0 of a machine does it, at boundaries, and reads the files in a thread that gives way to all others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

import torch

from trainerd.checkpoint.side_thread import KeptThread
from trainerd.contract.compiled_code import (
    FILES_MAX,
    CompiledRecord,
    files_below,
    is_temporary,
    is_unchanged,
    locks_below,
    look_at,
    read_compiled,
    write_compiled,
)
from trainerd.errors import SpaceError

if TYPE_CHECKING:
    from pathlib import Path

LOOK_S: Final = 60.0
"""How often the folder is looked at, in seconds, after the first step of an attempt."""

BUSY_S: Final = 2.0
"""When it is looked at again, in seconds, if a build was in progress."""


class CompiledFiles:
    """The run's compiled code, as one attempt sees it.

    Args:
        folder: The folder of the record; None if this process does not record it.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._thread = KeptThread("trainerd-compiled")
        self._next_s: float | None = None  # None before the first step
        self._recorded: CompiledRecord | None = None

    def open(self) -> None:
        """Remove what another version of torch has left: its libraries have the names of this one's."""
        if self._folder is None:
            return
        self._recorded = read_compiled(self._folder)
        if self._recorded is not None and self._recorded.torch != torch.__version__:
            old = {each.path for each in self._recorded.files}
            for path in old.intersection(files_below(self._folder)):
                with contextlib.suppress(OSError):
                    (self._folder / path).unlink()
            self._recorded = None

    def step_done(self) -> None:
        """A step is done: what was compiled for it is recorded in the background, if anything was."""
        if self._folder is None:
            return
        now_s = time.monotonic()
        if self._next_s is None or now_s >= self._next_s:
            self._next_s = now_s + LOOK_S
            if self._folder.is_dir():
                self._thread.run(self._record_in_background)

    def close(self) -> None:
        """Record what was compiled since, if steps were made."""
        if self._folder is not None and self._next_s is not None:
            self._thread.close()
            if self._folder.is_dir():
                self.record()

    def _record_in_background(self) -> None:
        if not self.record():
            self._next_s = time.monotonic() + BUSY_S

    def record(self) -> bool:
        """Record what is whole; return whether no build was in progress."""
        assert self._folder is not None
        names = sorted([path for path in files_below(self._folder) if not is_temporary(path)])[:FILES_MAX]
        if any(is_locked(path) for path in locks_below(self._folder)):
            return False
        known = {each.path: each for each in self._recorded.files} if self._recorded is not None else {}
        files = []
        for name in names:
            found = known.get(name)
            if found is None or not is_unchanged(self._folder, found):
                found = look_at(self._folder, name, syncs=True)
            if found is not None:
                files.append(found)
        record = CompiledRecord(torch.__version__, (*files,))
        if record != self._recorded:
            with contextlib.suppress(SpaceError, OSError):  # then the next attempt compiles again
                write_compiled(self._folder, record)
                self._recorded = record
        return True


def is_locked(path: Path) -> bool:
    """Tell whether a process holds the lock of a file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
