"""How far the attempts before one came, from the pages that their ranks have left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.paths import AttemptPaths

if TYPE_CHECKING:
    from pathlib import Path

ATTEMPTS_LOOKED_AT_MAX: Final = 32
"""How many attempts back a page is looked for: those that die before their first beat leave none."""


def furthest_step_before(paths: AttemptPaths, *, rank: int) -> int:
    """Return the highest step that a rank had finished in earlier attempts, 0 if that is not known.

    Each page says how far those before it came, so the newest one that can be read is enough.

    Args:
        paths: Folder of the attempt, named by its number.
        rank: Whose pages are read.
    """
    if not paths.root.name.isdecimal():
        return 0
    number = int(paths.root.name)
    for earlier in range(number - 1, max(number - 1 - ATTEMPTS_LOOKED_AT_MAX, 0), -1):
        reached = _reached(paths.root.with_name(f"{earlier:06d}"), rank)
        if reached:
            return reached
    return 0


def _reached(folder: Path, rank: int) -> int:
    try:
        beat = read_heartbeat(AttemptPaths(folder).heartbeat(rank))
    except OSError:
        return 0
    return max(beat.step, beat.furthest_step) if beat is not None else 0
