"""Leaves checkpoints behind, so that the next attempt goes on from an older one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.contract.paths import RunPaths

LOCK_WAIT_S: Final = 5.0
"""How long a process that prunes or exports just then is waited for, in seconds."""


def go_back(run: RunPaths, name: str, *, reason: str) -> tuple[str, ...]:
    """Set aside every checkpoint newer than the one called `name`; return their names.

    May be repeated. Nothing is done if that one is gone: then another process has decided in the meantime.

    Raises:
        LockedError: A process writes to the run.
        SpaceError: The disk is full; from what was noted on, the next writer completes it.
    """
    from trainerd.checkpoint.store import CheckpointStore  # a supervisor of plain commands never needs it

    store = CheckpointStore.of_run(run)
    with store.lock(wait_s=LOCK_WAIT_S):
        store.take_over()  # an attempt on another machine would save what is newer again
        store.sweep()
        try:
            checkpoint = store.find(name)
        except UserError:
            return ()
        return store.set_aside_after(checkpoint, reason)
