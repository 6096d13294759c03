"""Deleting a checkpoint: renamed first, so that nobody ever finds half of one under its name."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from trainerd.checkpoint.names import pruned_name
from trainerd.checkpoint.reading import undisturbed
from trainerd.contract.durable import sync_directory
from trainerd.contract.failpoints import declare

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["remove_renamed", "rename_for_removal"]

RENAMED = declare(
    "prune.renamed", "a whole checkpoint under a name that nobody reads; removed at the next start"
)
REMOVED = declare(
    "prune.removed", "nothing of the pruned checkpoint, or after a power cut parts of it; removed likewise"
)


def rename_for_removal(folder: Path) -> Path | None:
    """Take a checkpoint out of the listing, durably; return where it is, None if somebody reads it or it is gone."""
    target = folder.with_name(pruned_name(folder.name))
    try:
        with undisturbed(folder) as is_free:
            if not is_free:
                return None
            folder.rename(target)
            RENAMED.hit()
            # Synced before anything in it goes: after a power cut the old name must not hold the rest of it.
            sync_directory(folder.parent)
    except FileNotFoundError:
        return None
    return target


def remove_renamed(folder: Path) -> None:
    """Delete what `rename_for_removal` took out. What cannot be deleted now is swept at the next start."""
    shutil.rmtree(folder, ignore_errors=True)
    REMOVED.hit()
