"""Whether there is room on the disk for a job to go on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.contract.paths import RunPaths

MARGIN_BYTES: Final = 16 * 1024 * 1024
"""For logs, records and the journal, beside the next checkpoint."""

MARGIN_FACTOR: Final = 1.2
"""The next checkpoint may be larger than the newest one."""


def has_room(run: RunPaths) -> bool:
    """Return whether a checkpoint as large as the newest one would fit. Unknown counts as no."""
    try:
        status = os.statvfs(run.root)
        free_bytes = status.f_bavail * status.f_frsize
        return free_bytes >= MARGIN_BYTES + MARGIN_FACTOR * _newest_bytes(run.checkpoints)
    except OSError:
        return False


def _newest_bytes(checkpoints: Path) -> int:
    if not checkpoints.is_dir():
        return 0
    folders = sorted(
        path for path in checkpoints.iterdir() if path.name.startswith("step-") and path.is_dir()
    )
    return sum(file.stat().st_size for file in folders[-1].iterdir()) if folders else 0
