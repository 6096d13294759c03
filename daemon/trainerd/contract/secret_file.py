"""Who may read a file of secrets: its owner, root, and the user whose jobs get them. No group."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from trainerd.contract.access_list import READ, read_access_list
from trainerd.contract.folder_owner import ROOT_UID, account_name, as_owner, as_root, group_name, quoted

if TYPE_CHECKING:
    from pathlib import Path


def why_not_secret(path: Path, reader_uid: int | None) -> tuple[str, str] | None:
    """Return what is wrong with the rights of a file of secrets, and the command that fixes it; or None.

    Members of the group of a state folder may read logs and specs, and so may find out which file it is: it
    must not be theirs to read. Whatever cannot be found out is wrong.

    Args:
        path: The file; links are followed.
        reader_uid: Who has to read it at each launch; None is not known.

    Raises:
        OSError: It cannot be looked at.
    """
    status = path.stat()
    granted = read_access_list(path, status.st_mode)
    readers = {ROOT_UID, status.st_uid, reader_uid}
    remedy = _remedy(path, status, reader_uid)
    if status.st_mode & stat.S_IRWXO:
        return f"{path} holds secrets and is open to all users", remedy
    for gid, permissions in granted.granted_groups(status.st_gid).items():
        if permissions:
            return f"{path} holds secrets and is open to the group {group_name(gid)}", remedy
    for uid, permissions in granted.users.items():
        if permissions and uid not in readers:
            return f"{path} holds secrets and is open to the user {account_name(uid)}", remedy
    if reader_uid in {None, ROOT_UID} or _is_readable(status, granted.users, reader_uid):
        return None
    assert reader_uid is not None
    return f"{path} cannot be read by {account_name(reader_uid)}, whose jobs get it", remedy


def _is_readable(status: os.stat_result, users: dict[int, int], uid: int | None) -> bool:
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IRUSR)
    return uid is not None and bool(users.get(uid, 0) & READ)


def _remedy(path: Path, status: os.stat_result, reader_uid: int | None) -> str:
    """Return what closes the file and leaves it readable for those who need it."""
    closing = f"chmod 600 {quoted(path)}"
    if reader_uid in {None, status.st_uid}:
        return as_owner(status.st_uid, closing)
    assert reader_uid is not None
    # Not chmod alone: with that the group would be shut out by which the supervisor has read it so far.
    return f"{as_root(f'chown {account_name(reader_uid)} {quoted(path)}')} && {as_root(closing)}"
