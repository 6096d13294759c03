"""Says whose rights a user lacks: a folder that may not be looked at is not one in which there is nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from trainerd.contract.durable import TEMPORARY_INFIX
from trainerd.contract.folder_owner import account_name, as_user
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths


def why_unreachable(state: StatePaths) -> UserError | None:
    """Return why this user cannot talk to a supervisor that may well run, None if rights are no obstacle."""
    socket = state.socket.absolute()
    try:
        owner = socket.lstat().st_uid
    except PermissionError:
        return _refusal(socket, closed_folder(socket))
    except OSError:
        return None
    if os.access(socket, os.R_OK | os.W_OK, effective_ids=True):
        return None
    name = account_name(owner)
    return UserError(
        f"the supervisor on {state.root} belongs to {name}: this user may not talk to it",
        hint=f"run this as that user: {as_user(owner, 'trainerd …')}",
    )


def without_rights(error: PermissionError) -> UserError:
    """Return what a refusal of the filesystem means to the user of a verb."""
    if not isinstance(error.filename, str | bytes):
        return UserError(
            f"this user may not do that: {error.strerror or error}",
            hint="run this as the user to whom the files belong",
        )
    path = Path(os.fsdecode(error.filename)).absolute()
    if TEMPORARY_INFIX in path.name:
        path = path.parent  # nothing of that name is there: it is the folder that may not be written to
    return _refusal(path, closed_folder(path))


def closed_folder(path: Path) -> Path | None:
    """Return the uppermost folder above a path that this user may not look into, None if there is none."""
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK, effective_ids=True):
            return folder
    return None


def _refusal(path: Path, closed: Path | None) -> UserError:
    try:
        owner: int | None = (closed or path).lstat().st_uid
    except OSError:
        owner = None if closed is not None else _owner_of_folder(path)
    subject = closed or path
    whose = "" if owner is None else f", which belongs to {account_name(owner)}"
    where = f" in {closed}" if closed is not None else f" with {subject}"
    return UserError(
        f"{path}: permission denied: this user has no rights{where}{whose}",
        hint="run this as its owner"
        if owner is None or owner == os.geteuid()
        else f"run this as its owner: {as_user(owner, 'trainerd …')}",
    )


def _owner_of_folder(path: Path) -> int | None:
    try:
        return path.parent.stat().st_uid
    except OSError:
        return None
