"""What the shim has to say to a person.

Timed lines on its standard error, which is `AttemptPaths.shim_log`.
"""

from __future__ import annotations

import contextlib
import os
import time

STANDARD_ERROR = 2


def note(message: str) -> None:
    """Say it. A full disk or a closed descriptor silences the shim, and never stops it."""
    with contextlib.suppress(OSError):
        os.write(STANDARD_ERROR, f"{timestamp(time.time())} shim[{os.getpid()}]: {message}\n".encode())


def timestamp(wall_s: float) -> str:
    """Return a moment as people and tools read it, such as 2026-11-30T12:00:00.250Z."""
    milliseconds = int(wall_s * 1000)
    day_and_time = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{day_and_time}.{milliseconds % 1000:03d}Z"
