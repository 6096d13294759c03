"""Finds the folder of a job's run, with no supervisor needed."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

from trainerd.cli.rights import without_rights
from trainerd.contract.names import check_name
from trainerd.contract.nearest import nearest_hint
from trainerd.contract.paths import StatePaths
from trainerd.errors import TrainerdError, UserError

if TYPE_CHECKING:
    from trainerd.contract.paths import RunPaths

EXEC: Final = "exec"
"""Folder in a state folder in which `trainerd exec` keeps a state folder for each job."""


def find_run(state: StatePaths, name: str) -> RunPaths:
    """Return the run folder of a job; it may be missing as long as a supervisor knows the job.

    Raises:
        UserError: There is no such job; the hint names the nearest one.
    """
    run = state.run(check_name(name))
    try:
        if stat.S_ISDIR(run.root.stat().st_mode):
            return run
    except PermissionError as error:  # not to be seen is not to be absent
        raise without_rights(error) from error
    except OSError:
        pass
    if not state.root.is_dir():
        raise UserError(
            f"there is no state folder {state.root}", hint="name it with --state-dir DIR or TRAINERD_STATE"
        )
    if (other := _of_exec(state, name)) is not None:
        return other
    waiting = _known_to_supervisor(state)
    if name in waiting:
        return run
    raise UserError(f"no job {name!r}", hint=nearest_hint(name, {*_folders(state), *waiting}))


def _of_exec(state: StatePaths, name: str) -> RunPaths | None:
    """Return the run of a job that `trainerd exec` ran here, None if there is none."""
    run = StatePaths(state.root / EXEC / name).run(name)
    return run if run.root.is_dir() else None


def _folders(state: StatePaths) -> set[str]:
    try:
        return {folder.name for folder in state.runs.iterdir() if folder.is_dir()}
    except OSError:
        return set()


def _known_to_supervisor(state: StatePaths) -> set[str]:
    """Return the jobs that a supervisor knows, some of which have not been launched yet."""
    if not os.path.exists(state.socket):  # noqa: PTH110 (never raises)
        return set()
    from trainerd.cli.client import Client

    with contextlib.suppress(TrainerdError), Client(state) as client:
        return {job.name for job in client.list_jobs()}
    return set()
