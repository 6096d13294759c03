"""Durable writes that outlast a full disk: tried again within a budget, while the ranks go on undisturbed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from trainerd.contract import records
from trainerd.errors import SpaceError
from trainerd.shim.notes import note

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trainerd.contract.clock import Clock

RETRY_S: Final = 0.5

GONE_PATIENCE_S: Final = 10.0
"""How long a folder that is no longer there is waited for, in seconds: unlike a full disk, it stays away."""


def write_persistently(
    path: Path,
    record: object,
    clock: Clock,
    *,
    patience_s: float,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Write a record durably, again and again if the filesystem will not have it. Says so once.

    A folder that is gone is waited for less long, `GONE_PATIENCE_S`.

    Args:
        path: The file to write.
        record: The record to write.
        clock: Measures the budget.
        patience_s: The budget, in seconds.
        pause: Waits so many seconds between two tries.

    Raises:
        SpaceError: The disk was still full or read-only at the end of it.
        OSError: What else the filesystem still said then.
    """
    deadline_s = clock.monotonic_s() + patience_s
    failures = 0
    while True:
        try:
            records.write(path, record)
        except (SpaceError, OSError) as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                deadline_s = min(deadline_s, clock.monotonic_s() + GONE_PATIENCE_S)
            if clock.monotonic_s() >= deadline_s:
                raise
            if not failures:
                left_s = deadline_s - clock.monotonic_s()
                note(f"{path.name} cannot be written yet, trying for {left_s:.0f} s: {error}")
            failures += 1
            pause(RETRY_S)
        else:
            if failures:
                note(f"{path.name} was written after {failures} failures")
            return
