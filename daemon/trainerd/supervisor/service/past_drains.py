"""What the earlier drains of a job took, by its exit records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.contract import records
from trainerd.contract.records import ExitRecord
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from trainerd.contract.paths import RunPaths

ATTEMPTS_MAX: Final = 20
"""How many attempts are looked back at: what a save takes changes with the model and the disk."""


def past_drains_s(run: RunPaths, before: int) -> tuple[float, ...]:
    """Return the times from the request to stop to the end of the last rank, oldest first, in seconds.

    Blocks.

    Args:
        run: The run folder.
        before: Number of the attempt that is to be drained.
    """
    found = []
    for number in range(max(1, before - ATTEMPTS_MAX), before):
        try:
            ending = records.read(run.attempt(number).exit, ExitRecord)
        except (CorruptError, OSError):
            continue  # one guide less
        if ending is not None and ending.stop_requested_s is not None:
            found.append(max(ending.duration_s - ending.stop_requested_s, 0.0))
    return tuple(found)
