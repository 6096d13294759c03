"""Keeps a fault in handling one job from reaching anything else, and tells the next supervisor of it.

Two nets. An exception, whatever its kind, becomes an event that sets the job aside. An end of the process
while a job is handled (a crash of the interpreter, a library that calls abort) is told by a page of shared
memory that says what is being handled: it outlives the process, and costs no system call to write.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import traceback
from typing import TYPE_CHECKING, Final

from trainerd.contract.safe_text import safe_line
from trainerd.supervisor.machine.job_events import FaultSeen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TRACEBACK_LINES_MAX: Final = 40
"""Most lines of a traceback that are kept, the newest calls."""

ENDS_MAX: Final = 2
"""After so many ends in a row while handling the same thing of a job, the job is set aside."""

_PAGE_BYTES: Final = 4096
_BUG: Final = "this is a bug of trainerd, not of the job: please report it with the traceback"


def fault_of(error: BaseException, doing: str) -> FaultSeen:
    """Return the event that says that handling a job failed.

    Args:
        error: What was raised.
        doing: What was being done.
    """
    lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    what = safe_line(f"{type(error).__name__}: {error}".rstrip(": "), characters_max=300)
    return FaultSeen(
        f"trainerd failed in {doing}: {what}; {_BUG}",
        tuple(safe_line(line, characters_max=500) for line in lines[-TRACEBACK_LINES_MAX:]),
    )


class HandlingPage:
    """What the supervisor of a state folder is handling, for the next one to read.

    Args:
        path: The page; None for none, in simulations.
    """

    def __init__(self, path: Path | None) -> None:
        self._page: mmap.mmap | None = None
        self._ends: dict[str, list[object]] = {}
        if path is not None:
            with contextlib.suppress(OSError, ValueError):
                self._open(path)

    def _open(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            # Not sparse: touching a hole on a full disk is a SIGBUS, and here an error.
            os.posix_fallocate(descriptor, 0, 2 * _PAGE_BYTES)
            page = mmap.mmap(descriptor, 2 * _PAGE_BYTES)
        finally:
            os.close(descriptor)
        doing = _read(page, 0)
        ends = _read(page, _PAGE_BYTES)
        job, what = doing.get("job"), doing.get("what")
        if isinstance(job, str) and isinstance(what, str):
            before = ends.get(job)
            count = int(before[1]) if isinstance(before, list) and before[:1] == [what] else 0
            self._ends = {job: [what, count + 1]}
        _write(page, _PAGE_BYTES, self._ends)
        _write(page, 0, {})
        self._page = page

    def suspects(self) -> dict[str, str]:
        """Return the jobs that are to be set aside, and what the supervisors before were doing with them."""
        return {
            job: str(what)
            for job, (what, count) in self._ends.items()
            if isinstance(count, int) and count >= ENDS_MAX
        }

    @contextlib.contextmanager
    def handling(self, job: str, what: str) -> Iterator[None]:
        """Say what is handled for as long as the context lasts, however it is left but by an end."""
        if self._page is None:
            yield
            return
        _write(self._page, 0, {"job": job, "what": what})
        try:
            yield
        finally:
            _write(self._page, 0, {})

    def close(self) -> None:
        """Say that this supervisor ended in order."""
        page, self._page = self._page, None
        if page is not None:
            _write(page, _PAGE_BYTES, {})
            page.close()


def _read(page: mmap.mmap, offset: int) -> dict[str, object]:
    try:
        found = json.loads(page[offset : offset + _PAGE_BYTES].rstrip(b"\0") or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(page: mmap.mmap, offset: int, value: Mapping[str, object]) -> None:
    data = json.dumps(value).encode()
    if len(data) < _PAGE_BYTES:
        page[offset : offset + _PAGE_BYTES] = data.ljust(_PAGE_BYTES, b"\0")
