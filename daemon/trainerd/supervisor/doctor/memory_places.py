"""Copies in memory of runs that are gone: nothing will remove them but the end of the machine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.memory_place import DEFAULT_BASE, places_left
from trainerd.contract.environment import MEMORY_DIR
from trainerd.contract.folder_owner import acting_as_user, quoted
from trainerd.errors import UserError
from trainerd.supervisor.doctor.finding import ok, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.supervisor.doctor.finding import Finding

CHECK: Final = "memory"


def check_memory_places(uid: int, base: Path | None = None) -> Iterator[Finding]:
    """Look for copies in memory that no run will go on from.

    Args:
        uid: The user of the supervisor.
        base: Folder in which they lie; None is where they lie by default.
    """
    base = base or Path(os.environ.get(MEMORY_DIR) or DEFAULT_BASE)
    try:
        with acting_as_user(uid, base):
            left = [(place, owner, _size_bytes(place)) for place, owner in places_left(base)]
    except UserError as error:
        yield skipped(CHECK, str(error))
        return
    if not left:
        yield ok(CHECK, f"no run that is gone has copies in {base}")
    for place, owner, size_bytes in left:
        whose = f"of {owner}, which does not lead to it any more" if owner is not None else "of no run"
        yield warning(CHECK, f"{place} holds {size_bytes / 2**20:.1f} MiB {whose}", f"rm -r {quoted(place)}")


def _size_bytes(folder: Path) -> int:
    size_bytes = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            size_bytes += path.lstat().st_blocks * 512
    return size_bytes
