"""How far a run is by what lies in its folder: its newest checkpoint, and the loss measured up to it.

What an attempt said last is not that: one that was drained speaks before its last save is committed, and one
that crashed had done steps which are run again.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.committed import read_checkpoint
from trainerd.checkpoint.listing import checkpoint_folders
from trainerd.contract.nonfinite import as_number
from trainerd.contract.regular_file import open_regular
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.contract.paths import RunPaths

HISTORY_TAIL_BYTES: Final = 64 * 1024
"""How much of the end of a metric history is searched for a loss, in bytes."""


@dataclass(frozen=True)
class SavedProgress:
    """Newest checkpoint of a run.

    Attributes:
        checkpoint: Name of its folder; empty if there is none.
        identity: Inode and time of change of that folder: whether it is the same one at the next look.
        step: Optimizer steps done; None if there is no checkpoint.
        epoch: Epoch in progress, from 0.
        batch: Batches finished in this epoch.
        loss: Last value logged as `loss` up to that step, None if none was found.
    """

    checkpoint: str = ""
    identity: tuple[int, int] = (0, 0)
    step: int | None = None
    epoch: int | None = None
    batch: int | None = None
    loss: float | None = None


NOTHING_SAVED: Final = SavedProgress()


def read_saved(run: RunPaths, known: SavedProgress | None = None) -> SavedProgress | None:
    """Return what a run has saved, None if that cannot be told. Changes nothing.

    Args:
        run: Its folder.
        known: What was read before; it is returned where the newest checkpoint is still the same.
    """
    try:
        folders = checkpoint_folders(run.checkpoints)
    except (OSError, TrainerdError):
        return None
    for folder in reversed(folders):
        try:
            status = folder.stat()
            identity = (status.st_ino, status.st_mtime_ns)
            if known is not None and (known.checkpoint, known.identity) == (folder.name, identity):
                return known
            found = read_checkpoint(folder)
        except FileNotFoundError:
            continue  # pruned meanwhile
        except PermissionError:
            return None  # the owner of the run can read it, and would resume from it
        except (OSError, TrainerdError):
            continue  # the one before is what a resume would look at next
        manifest = found.manifest
        loss = loss_before(run.metrics, found.step)
        return SavedProgress(folder.name, identity, found.step, manifest.epoch, manifest.batch, loss)
    return NOTHING_SAVED


def loss_before(history: Path, step: int) -> float | None:
    """Return the last loss that was logged up to a step, looked for at the end of a metric history."""
    try:
        descriptor = open_regular(history)
    except OSError:
        return None
    try:
        size = os.fstat(descriptor).st_size
        data = os.pread(descriptor, HISTORY_TAIL_BYTES, max(0, size - HISTORY_TAIL_BYTES))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    for line in reversed(data.split(b"\n")):
        if b'"loss"' not in line:
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue  # torn by a crash, or by where the tail begins
        if not isinstance(row, dict) or "report" in row or not isinstance(row.get("step"), int):
            continue
        loss = as_number(row.get("loss"))
        if row["step"] <= step and isinstance(loss, float | int) and not isinstance(loss, bool):
            with contextlib.suppress(OverflowError):  # an integer of a thousand digits
                return float(loss)
    return None
