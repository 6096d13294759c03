"""A run that is named as a job, or by its folder where there was no supervisor."""

from __future__ import annotations

import os
from pathlib import Path

from trainerd.checkpoint.store import CheckpointStore
from trainerd.cli.options import find_state
from trainerd.cli.run_folder import find_run
from trainerd.contract.paths import RunPaths
from trainerd.errors import UserError


def is_path(text: str) -> bool:
    """Tell a folder from a job: the name of a job has no slash in it."""
    return os.sep in text or text in {".", ".."}


def run_at(place: str, state: Path | None) -> RunPaths:
    """Return the run folder that is meant, which may be missing.

    Raises:
        UserError: No state folder can be found, or the name cannot be one.
    """
    return RunPaths(Path(place)) if is_path(place) else find_state(state).run(place)


def store_at(place: str, state: Path | None) -> tuple[CheckpointStore, RunPaths]:
    """Return the checkpoints of a job, of a run folder, or of a folder that a `Checkpointer` writes to.

    Raises:
        UserError: There is no such job or folder.
    """
    if not is_path(place):
        run = find_run(find_state(state), place)
        return CheckpointStore.of_run(run), run
    run = RunPaths(Path(place))
    if not run.root.is_dir():
        raise UserError(f"there is no folder {place}")
    is_run = run.checkpoints.is_dir()
    return (CheckpointStore.of_run(run) if is_run else CheckpointStore(run.root)), run
