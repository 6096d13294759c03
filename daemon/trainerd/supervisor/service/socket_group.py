"""Whether the group of `socket.group` can use the socket: known, given by this process, and let through."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract.access_list import SEARCH, read_access_list
from trainerd.contract.folder_owner import ROOT_UID, account_name, group_name, quoted
from trainerd.contract.paths import USER_STATE
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.supervisor.service.configuration import SocketSection

_JOBS: Final = "(its jobs checkpoint, leave, and go on afterwards)"
_RESTART: Final = f"sudo systemctl restart trainerd {_JOBS}"
_NEW_LOGIN: Final = f"end your manager, sudo systemctl restart user@$(id -u) {_JOBS}"


def check_socket_group(section: SocketSection, state_dir: Path) -> None:
    """Return if the members of the group, should there be one, will reach the socket.

    Raises:
        UserError: They would not; the message says why and what to do.
    """
    group_id = section.group_id
    if group_id is None:
        return
    assert section.group is not None
    _check_membership(section.group, group_id, state_dir)
    closed = closed_to_group(state_dir, group_id)
    if closed is not None:
        mode = stat.S_IMODE(closed.stat().st_mode)
        raise UserError(
            f"socket.group: the group {section.group} cannot reach the socket: {closed} is closed to it "
            f"(mode {mode:04o}, group {group_name(closed.stat().st_gid)})",
            hint=f"let it through: sudo setfacl -m g:{section.group}:x {quoted(closed)}; or take the group "
            f"{group_name(closed.stat().st_gid)} as socket.group",
        )


def _check_membership(name: str, group_id: int, state_dir: Path) -> None:
    """Return if this process can give a file to the group.

    Raises:
        UserError: It is no member; or its user has become one, but the process has the groups it began with.
    """
    uid = os.geteuid()
    if uid == ROOT_UID or group_id in {os.getegid(), *os.getgroups()}:
        return
    user = account_name(uid)
    if is_member(uid, group_id):
        raise UserError(
            f"socket.group: {user} has joined the group {name} since this supervisor was started, "
            "and a process keeps the groups that it was started with",
            hint=f"a reload is not enough: {_NEW_LOGIN}"
            if _is_of_person(state_dir)
            else f"a reload is not enough, restart it: {_RESTART}",
        )
    join = f"sudo usermod -a -G {name} {user}"
    raise UserError(
        f"socket.group: {user}, the user of the supervisor, is no member of the group {name}",
        hint=f"{join}; then {_NEW_LOGIN}" if _is_of_person(state_dir) else f"{join} && {_RESTART}",
    )


def _is_of_person(state_dir: Path) -> bool:
    """Return whether a state folder is that of a person's own service.

    Its manager keeps the groups of the login that began it, so a restart of the service is not enough.
    """
    return state_dir.absolute() == Path.home() / USER_STATE


def is_member(uid: int, group_id: int) -> bool:
    """Return whether the user database has a user in a group."""
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return False
    return group_id in os.getgrouplist(account.pw_name, account.pw_gid)


def closed_to_group(state_dir: Path, group_id: int) -> Path | None:
    """Return the uppermost folder on the way to a state folder that a group may not pass, None if none is.

    A folder that is not there yet will be made by the supervisor, who opens it to the group.
    """
    state_dir = Path(os.path.realpath(state_dir))
    for folder in (*reversed(state_dir.parents), state_dir):
        try:
            status = folder.stat()
        except FileNotFoundError:
            return None
        if status.st_mode & stat.S_IXOTH:
            continue
        granted = read_access_list(folder, status.st_mode).granted_groups(status.st_gid)
        if not granted.get(group_id, 0) & SEARCH:
            return folder
    return None
