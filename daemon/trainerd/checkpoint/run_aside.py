"""Moves a whole run folder aside, so that a new run can begin under its name. Nothing is deleted."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.memory_place import discard_memory
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.durable import make_directory, sync_directory
from trainerd.contract.failpoints import declare
from trainerd.contract.names import NAME_LENGTH_MAX
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.contract.paths import RunPaths

__all__ = ["RUN_ASIDE", "FreePlace", "free_place", "give_run_back", "immovable", "is_aside", "move_run_aside"]

_ASIDE: Final = re.compile(r".+\.old-\d+")

RUN_ASIDE = declare("run.aside", "the whole run as `….old-1`; the next attempt begins at step 0")
RUN_GIVEN_BACK = declare("run.given-back", "the whole run in its place again")


@dataclass(frozen=True)
class FreePlace:
    """A free name for a run that is moved aside, on the disk where the run is.

    Attributes:
        path: The folder.
        link: Link to it beside a run folder that is itself a link, None if it is not.
    """

    path: Path
    link: Path | None

    def show(self) -> Path:
        """Make the link, if that can be done, and return where a person finds the run."""
        sync_directory(self.path.parent)
        if self.link is not None:
            with contextlib.suppress(OSError):
                self.link.symlink_to(self.path)
                return self.link
        return self.path


def is_aside(name: str) -> bool:
    """Tell whether a run folder of that name was moved aside."""
    return _ASIDE.fullmatch(name) is not None


def move_run_aside(run: RunPaths) -> Path | None:
    """Move a run folder to a free name beside it, such as ``train.old-1``; return that, None without a run.

    For folders that hold nothing but a run. One that is a link stays a link: what it leads to is moved.

    Raises:
        LockedError: Another process trains this run.
        UserError: It cannot be moved; it is where it was.
    """
    if not run.root.is_dir() or not any(run.root.iterdir()):
        return None
    with CheckpointStore.of_run(run).lock():
        discard_memory(run.checkpoints)
        place = free_place(run.root)
        try:
            _real(run.root).rename(place.path)
        except OSError as error:
            raise immovable(run, error) from error
        shown = place.show()
    RUN_ASIDE.hit()
    if run.root.is_symlink():
        make_directory(run.root)
    return shown


def give_run_back(run: RunPaths, place: Path) -> bool:
    """Move a run that was moved aside back; return whether that was done.

    It is not done if something is in its place by now, or if the filesystem refuses.
    """
    try:
        if run.root.is_dir():
            _real(run.root).rmdir()  # only if it is empty
        _real(place).rename(_real(run.root))
        if place.is_symlink():
            place.unlink()
        sync_directory(_real(run.root).parent)
    except OSError:
        return False
    RUN_GIVEN_BACK.hit()
    return True


def immovable(run: RunPaths, error: OSError) -> UserError:
    """Return the error that says why a run stays where it is."""
    return UserError(
        f"the run in {run.root} cannot be moved aside: {error.strerror}",
        hint="give the new run another folder, or move what is in there yourself",
    )


def free_place(root: Path, *, within: bool = False) -> FreePlace:
    """Return a free name for the run in a folder: beside the folder, or within it."""
    real = _real(root)
    number = 1
    while True:
        suffix = f".old-{number}"
        path = (real / real.name if within else real).with_name(_with_suffix(real, suffix))
        link = root.with_name(_with_suffix(root, suffix)) if root.is_symlink() and not within else None
        if not any(os.path.lexists(each) for each in (path, link) if each is not None):
            return FreePlace(path, link)
        number += 1


def _with_suffix(root: Path, suffix: str) -> str:
    return root.name[: NAME_LENGTH_MAX - len(suffix)] + suffix


def _real(root: Path) -> Path:
    """Return the folder itself if `root` is a link to it."""
    return Path(os.path.realpath(root)) if root.is_symlink() else root
