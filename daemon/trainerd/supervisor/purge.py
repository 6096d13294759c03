"""Delete a run folder for good, when a user asks for exactly that."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.memory_place import discard_memory
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.durable import sync_directory
from trainerd.contract.failpoints import declare
from trainerd.errors import LockedError, UserError
from trainerd.supervisor.attempt.probe import (
    ProbedElsewhere,
    ProbedEnded,
    ProbedLost,
    ProbedNotStarted,
    probe,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.contract.paths import RunPaths

PURGED_PREFIX: Final = ".purged-"
"""No job can have such a name."""

RUN_PURGED = declare(
    "run.purged", "a folder `.purged-…` among the runs, whole or in part; the next `rm --purge` deletes it"
)


def run_bytes(run: RunPaths) -> int:
    """Return how much a run folder occupies, as far as it can be read."""
    total = 0
    for path in run.root.rglob("*"):
        try:
            if not path.is_symlink():
                total += path.stat().st_blocks * 512
        except OSError:
            continue
    return total


def purge_run(run: RunPaths) -> None:
    """Delete a run folder. It is gone under its name in one step, whatever happens after that.

    Raises:
        LockedError: A process trains this run, or an attempt of it may live.
        UserError: It cannot be deleted.
    """
    try:
        _sweep(run.root.parent)
        if not run.root.is_dir():
            return
        refuse_if_live(run)
        with CheckpointStore.of_run(run).lock():
            discard_memory(run.checkpoints)
            aside = run.root.with_name(f"{PURGED_PREFIX}{run.root.name}")
            run.root.rename(aside)
            sync_directory(aside.parent)
        RUN_PURGED.hit()
        shutil.rmtree(aside)
    except OSError as error:
        raise UserError(
            f"cannot delete {error.filename or run.root}: {error.strerror}",
            hint="delete what is left by hand: nothing needs it any more",
        ) from error


def refuse_if_live(run: RunPaths) -> None:
    """Refuse if the newest attempt of a run may have processes.

    Raises:
        LockedError: It may.
    """
    number = run.newest_attempt()
    if not number:
        return
    found = probe(run.attempt(number))
    if isinstance(found, ProbedElsewhere):
        raise LockedError(
            f"attempt {number} of {run.root.name} may still run on {found.shim.host}, another machine",
            hint="stop it there; if that machine is gone, start and stop the job here once, which fences it",
        )
    if not isinstance(found, ProbedEnded | ProbedNotStarted | ProbedLost):
        raise LockedError(
            f"attempt {number} of {run.root.name} may still run", hint="stop it first, then try again"
        )


def _sweep(runs: Path) -> None:
    for leftover in runs.glob(f"{PURGED_PREFIX}*"):
        shutil.rmtree(leftover)
