"""Root does work in a folder as the owner of that folder, so that nothing of root's stays behind in it.

A file of root's in the state folder of a service is one that the service cannot write: a lock, a record or a
checkpoint like that blocks it.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
from typing import TYPE_CHECKING, Final

from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trainerd.contract.paths import StatePaths

ROOT_UID: Final = 0


def account_name(uid: int) -> str:
    """Return the name of a user, its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return the name of a group, its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def sudo_user(uid: int) -> str:
    """Return how ``sudo -u`` takes a user, who may have no name."""
    name = account_name(uid)
    return f"'#{uid}'" if name == str(uid) else name


def as_root(command: str) -> str:
    """Return a command for root as this user has to type it."""
    return command if os.geteuid() == ROOT_UID else f"sudo {command}"


def as_user(uid: int, command: str) -> str:
    """Return a command for a user as this user has to type it."""
    return command if os.geteuid() == uid else f"sudo -u {sudo_user(uid)} {command}"


def as_owner(owner_uid: int, command: str) -> str:
    """Return a command for the owner of a file, or root, as this user has to type it."""
    return command if os.geteuid() == owner_uid else as_root(command)


def quoted(path: Path) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(path))


def owner_of(folder: Path) -> int | None:
    """Return the user to whom a folder belongs, None if there is none or it cannot be looked at."""
    try:
        return folder.stat().st_uid
    except OSError:
        return None


def nearest_folder(path: Path) -> Path:
    """Return a path that is there, or the nearest folder above it that is."""
    while owner_of(path) is None and path != path.parent:
        path = path.parent
    return path


@contextlib.contextmanager
def acting_as_owner_of(folder: Path) -> Iterator[None]:
    """Act as the owner of a folder for as long as the context lasts, if this process is root's.

    Effective ids change for the whole process: not for a process with other threads that act as root.

    Raises:
        UserError: This process may not change its user, so nothing was done.
    """
    uid = owner_of(folder)
    with acting_as_user(ROOT_UID if uid is None else uid, folder):
        yield


@contextlib.contextmanager
def acting_as_user(uid: int, folder: Path) -> Iterator[None]:
    """Act as a user, as `acting_as_owner_of` does.

    Args:
        uid: The user; root changes nothing.
        folder: For which, to be named in the error.

    Raises:
        UserError: This process may not change its user, so nothing was done.
    """
    if uid == ROOT_UID or os.geteuid() != ROOT_UID:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    try:
        _take_on(uid, folder)
        yield
    finally:
        os.seteuid(ROOT_UID)
        os.setegid(group)
        with contextlib.suppress(PermissionError):  # then the groups were never given up
            os.setgroups(groups)


def _take_on(uid: int, folder: Path) -> None:
    gid, groups = groups_of(uid, folder)
    try:
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(uid)
    except OSError as error:
        name = account_name(uid)
        raise UserError(
            f"{folder} belongs to {name}, and this process may not act as {name}: {error.strerror}",
            hint="what root writes there could not be changed by its owner: run this as that user",
        ) from error


def groups_of(uid: int, folder: Path) -> tuple[int, list[int]]:
    """Return the group of a user and all that the user is in; for one without a name, that of a folder."""
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        gid = folder.stat().st_gid
        return gid, [gid]
    return account.pw_gid, os.getgrouplist(account.pw_name, account.pw_gid)


def refuse_root_on_service(state: StatePaths, command: str) -> None:
    """Return unless root is about to run a job in the state folder of another user's supervisor.

    A folder in which no supervisor has been is not refused: in containers root runs jobs in mounted ones.

    Args:
        state: The state folder.
        command: What its owner would type.

    Raises:
        UserError: It is; the hint says how its owner does it.
    """
    if {owner_of(state.lock), owner_of(state.journal)} - {None, ROOT_UID}:
        refuse_root_on_anothers(state.root, command)


def refuse_root_on_anothers(folder: Path, command: str, *, unit: str | None = None) -> None:
    """Return unless root is about to run a supervisor or a job on the folder of another user.

    Args:
        folder: The state folder.
        command: What its owner would type.
        unit: The service that runs there, None if it is not known.

    Raises:
        UserError: It is; the hint says how its owner does it.
    """
    uid = owner_of(folder)
    if os.geteuid() != ROOT_UID or uid in {None, ROOT_UID}:
        return
    assert uid is not None
    name = account_name(uid)
    start = f"systemctl start {unit}" if unit else f"sudo -u {sudo_user(uid)} {command}"
    raise UserError(
        f"{folder} belongs to {name}: what root wrote there could not be changed by {name}, "
        "and would block its service",
        hint=f"start it as its owner: {start}",
    )
