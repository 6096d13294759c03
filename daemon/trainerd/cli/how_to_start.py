"""How a supervisor is started on a state folder where none runs, without harm to what lies in it."""

from __future__ import annotations

import os
import pwd
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.cli.options import SYSTEM_STATE
from trainerd.contract import resolved
from trainerd.contract.durable import read_file
from trainerd.contract.folder_owner import account_name, as_root, as_user, owner_of
from trainerd.contract.paths import USER_STATE
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths

UNIT_FOLDERS: Final = (
    "/etc/systemd",
    "/run/systemd",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
    "/lib/systemd",
)
UNIT_FOLDERS_OF_PERSON: Final = (".config/systemd/user", ".local/share/systemd/user")
"""Below a home; the second one is where `make install-user` puts it."""
UNIT: Final = "trainerd.service"
RUNS_LOOKED_AT_MAX: Final = 50


def start_command(state: StatePaths) -> str:
    """Return the command that starts a supervisor on a state folder, as this user has to type it.

    The unit where one is installed for this folder. Else the verb, as the owner of the folder, and with the
    jobs folder that was watched before: with another folder all jobs would be forgotten.
    """
    root = state.root.absolute()
    if root == SYSTEM_STATE and unit_exists("system"):
        return as_root("systemctl start trainerd")
    owner = owner_of(root)
    if root == Path.home() / USER_STATE and unit_exists("user"):
        return "systemctl --user start trainerd"
    if owner is not None and root == _home_of(owner) / USER_STATE and unit_exists("user", _home_of(owner)):
        return as_root(f"systemctl --user --machine={account_name(owner)}@ start trainerd")
    command = run_command(state)
    return command if owner is None else as_user(owner, command)


def _home_of(uid: int) -> Path:
    """Return the home of a user, or a place that is none."""
    try:
        return Path(pwd.getpwuid(uid).pw_dir)
    except KeyError:
        return Path("/nonexistent")


def run_command(state: StatePaths) -> str:
    """Return the verb that supervises a state folder, with the jobs folder that it had before."""
    jobs_dir = last_jobs_dir(state)
    jobs = [] if jobs_dir is None else ["--jobs", str(jobs_dir)]
    return shlex.join(["trainerd", "run", *jobs, "--state", str(state.root)])


def unit_exists(kind: str, home: Path | None = None) -> bool:
    """Return whether a unit of trainerd is installed, for the machine (``system``) or a person (``user``).

    Args:
        kind: How the supervisor is started.
        home: Of the person; None is this user's.
    """
    folders = [f"{folder}/{kind}" for folder in UNIT_FOLDERS]
    if kind == "user":
        folders += [str((home or Path.home()) / folder) for folder in UNIT_FOLDERS_OF_PERSON]
    return any(os.path.exists(f"{folder}/{UNIT}") for folder in folders)  # noqa: PTH110 (never raises)


def last_jobs_dir(state: StatePaths) -> Path | None:
    """Return the jobs folder that the newest run came from, else the one in the state folder, if any."""
    try:
        runs = sorted(state.runs.iterdir(), key=lambda run: run.stat().st_mtime_ns, reverse=True)
    except OSError:
        runs = []
    for run in runs[:RUNS_LOOKED_AT_MAX]:
        path = state.runs / run.name / "job.json"
        try:
            folder = Path(resolved.decode(read_file(path), source=str(path)).spec_path).parent
        except (TrainerdError, OSError):
            continue
        if os.path.isdir(folder):  # noqa: PTH112 (never raises)
            return folder
    inside = state.root / "jobs"
    return inside if os.path.isdir(inside) else None  # noqa: PTH112 (never raises)
