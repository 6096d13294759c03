"""Moves a whole run aside, so that a new one can begin under its name. Nothing is deleted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.durable import sync_directory
from trainerd.contract.failpoints import declare
from trainerd.contract.names import NAME_LENGTH_MAX
from trainerd.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.contract.paths import RunPaths

__all__ = ["is_aside", "move_run_aside"]

_ASIDE: Final = re.compile(r".+\.old-\d+")

RUN_ASIDE = declare("run.aside", "the whole run as `….old-1`; the next attempt begins at step 0")


def is_aside(name: str) -> bool:
    """Tell whether a run folder of that name was moved aside."""
    return _ASIDE.fullmatch(name) is not None


def move_run_aside(run: RunPaths) -> Path | None:
    """Move a run to a free name beside it, such as ``train.old-1``; return it, None if there is no run.

    Raises:
        LockedError: Another process trains this run.
        UserError: It cannot be moved; it is where it was.
    """
    if not run.root.is_dir() or not any(run.root.iterdir()):
        return None
    with CheckpointStore.of_run(run).lock():
        place = _free_place(run.root)
        try:
            run.root.rename(place)
        except OSError as error:
            raise UserError(
                f"{run.root} cannot be moved aside: {error.strerror}",
                hint="give the new run another folder, or move what is in there yourself",
            ) from error
        sync_directory(place.parent)
    RUN_ASIDE.hit()
    return place


def _free_place(root: Path) -> Path:
    number = 1
    while True:
        suffix = f".old-{number}"
        place = root.with_name(root.name[: NAME_LENGTH_MAX - len(suffix)] + suffix)
        if not place.exists() and not place.is_symlink():
            return place
        number += 1
