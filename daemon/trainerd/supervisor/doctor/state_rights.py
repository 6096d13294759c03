"""The rights of a state folder, judged by the user of its supervisor."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

from trainerd.contract.folder_owner import ROOT_UID, account_name, as_owner, as_root, quoted
from trainerd.supervisor.doctor.finding import broken, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.doctor.finding import Finding

FOREIGN_SHOWN_MAX: Final = 50
"""So many names that are another user's are shown at once."""


def judged_access(state: StatePaths, status: os.stat_result, uid: int) -> Finding:
    """Judge whether the supervisor, and no stranger, may write to its folder."""
    root, name = state.root, account_name(uid)
    if status.st_mode & stat.S_IWOTH:
        return broken(
            "state folder",
            f"{root} can be written by all users: checkpoints and the journal may be another user's",
            as_owner(status.st_uid, f"chmod o-w {quoted(root)}"),
        )
    if uid not in {status.st_uid, ROOT_UID}:
        return broken(
            "state folder",
            f"{root} belongs to {account_name(status.st_uid)}, and its supervisor runs as {name}",
            as_root(f"chown {name} {quoted(root)}"),
        )
    if uid != ROOT_UID and status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        return broken(
            "state folder",
            f"{root} cannot be written by {name}, its owner (mode {stat.S_IMODE(status.st_mode):04o})",
            as_owner(status.st_uid, f"chmod u+rwx {quoted(root)}"),
        )
    foreign = _foreign_entries(state, uid)
    if foreign:
        return broken(
            "state folder",
            f"{', '.join(path.name for path in foreign)} in {root}: not {name}'s, so its supervisor cannot "
            "write there",
            as_root(f"chown -hR {name} {' '.join(quoted(path) for path in foreign)}"),
        )
    if os.geteuid() == uid and not os.access(root, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        return broken(
            "state folder",
            f"{root} cannot be written, though its rights allow it",
            "look at its disk: is it mounted read-only?",
        )
    return ok("state folder", f"{root} can be written by {name} (mode {stat.S_IMODE(status.st_mode):04o})")


def _foreign_entries(state: StatePaths, uid: int) -> list[Path]:
    """Return what a supervisor writes to and that is another user's: left behind by root, mostly."""
    if uid == ROOT_UID:
        return []
    beside = [state.journal.with_name(f"{state.journal.name}{suffix}") for suffix in ("-wal", "-shm")]
    paths = [state.lock, state.journal, *beside, state.handling, state.hold, state.log.parent, state.runs]
    with contextlib.suppress(OSError):
        paths += [path for folder in (state.log.parent, state.runs) for path in sorted(folder.iterdir())]
    foreign = []
    for path in paths:
        owner = _owner_of_name(path)
        if owner is not None and owner != uid:
            foreign.append(path)
    return foreign[:FOREIGN_SHOWN_MAX]


def _owner_of_name(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except OSError:
        return None


def judged_privacy(state: StatePaths, status: os.stat_result) -> Iterator[Finding]:
    """Look at whether neighbours may read specs and logs."""
    # Where the socket is a group's, its members may reach it by the right of all users to pass.
    is_for_group = False
    with contextlib.suppress(OSError):
        is_for_group = bool(state.socket.lstat().st_mode & stat.S_IRWXG)
    if status.st_mode & stat.S_IROTH:
        what = "can be read by all users, and so can specs, logs and checkpoints"
    elif status.st_mode & stat.S_IXOTH and not is_for_group:
        what = "can be passed by all users: those who know the names of logs and specs can read them"
    else:
        return
    command = f"chmod {'o-r' if is_for_group else 'o-rwx'} {quoted(state.root)}"
    yield warning("state folder", f"{state.root} {what}", as_owner(status.st_uid, command))
