"""Deleting a checkpoint: renamed first, so that half of one is never found under its name."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

from trainerd.checkpoint.checkpoint_names import pruned_name
from trainerd.checkpoint.reading import undisturbed
from trainerd.contract.durable import sync_directory
from trainerd.contract.failpoints import declare

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Remover", "remove_renamed", "rename_for_removal"]

RENAMED = declare(
    "prune.renamed", "a whole checkpoint under a name that is never read; removed at the next start"
)
REMOVED = declare(
    "prune.removed", "nothing of the pruned checkpoint, or after a power cut parts; removed likewise"
)


def rename_for_removal(folder: Path) -> Path | None:
    """Take a checkpoint out of the listing, durably.

    Return where it is, None if it is being read or is gone.
    """
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


class Remover:
    """Deletes renamed folders at once, or in one thread behind the caller's back.

    The thread is a daemon: an exit does not wait for it, and what is left is swept at the next start.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def remove(self, folders: Sequence[Path], *, in_background: bool) -> None:
        """Delete `folders`; in the background they come after those of the call before."""
        if not in_background:
            _remove_all(folders, None)
        elif folders:
            arguments = (tuple(folders), self._thread)
            self._thread = threading.Thread(
                target=_remove_all, args=arguments, name="trainerd-removal", daemon=True
            )
            self._thread.start()

    def wait(self, *, limit_s: float) -> bool:
        """Wait for the thread, `limit_s` seconds at most; return whether it is done."""
        if self._thread is not None:
            self._thread.join(limit_s)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True


def _remove_all(folders: Sequence[Path], after: threading.Thread | None) -> None:
    if after is not None:
        after.join()
    for folder in folders:
        remove_renamed(folder)
