"""Tells when the disk runs low: once, and again only after there was room in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trainerd.supervisor.notices.notice_rules import Notice

LOOK_S: Final = 30.0
"""How often the disk is looked at, in seconds."""

RECOVERY_FACTOR: Final = 1.2
"""So much more than the limit must be free before running low is news again."""

_GIB: Final = 1024**3


@dataclass(frozen=True)
class DiskWatch:
    """What is known of a disk.

    Attributes:
        low_bytes: Below so much free space it runs low.
        is_low: Whether it has been said that it does.
    """

    low_bytes: int
    is_low: bool = False


def look_at_disk(
    watch: DiskWatch, free_bytes: int, *, folder: str, wall_s: float
) -> tuple[DiskWatch, Notice | None]:
    """Return what is known now, and the notice that follows."""
    if watch.is_low:
        return DiskWatch(watch.low_bytes, free_bytes < watch.low_bytes * RECOVERY_FACTOR), None
    if free_bytes >= watch.low_bytes:
        return watch, None
    free, low = free_bytes / _GIB, watch.low_bytes / _GIB
    message = f"{free:.2f} GiB are free on the disk of {folder}, less than {low:.2f} GiB: free some space"
    details = {"free_bytes": free_bytes, "low_bytes": watch.low_bytes}
    return DiskWatch(watch.low_bytes, is_low=True), Notice(
        "disk-low", message, wall_s=wall_s, details=details
    )
