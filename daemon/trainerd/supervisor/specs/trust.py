"""Who may have written a spec: cron's rule.

A spec runs commands as the daemon's user, so a user who can write one can do all that this user can.
Therefore the folder and the spec belong to that user or to root, and no other user may write to them. Of a
symbolic link the folder that holds the link, the target, and the folder that holds the target are judged, for
each link on the way.

Writable by the group is allowed where the group is the owner's own (same name, no other member), as Debian's
OpenSSH allows it: with the usual umask 002 every file is.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainerd.contract.access_list import WRITE, read_access_list
from trainerd.contract.folder_owner import (
    ROOT_UID,
    account_name,
    as_owner,
    as_root,
    group_name,
    owner_of,
    quoted,
)
from trainerd.errors import UntrustedError

_LINKS_MAX: Final = 40  # as the kernel has it
_TOP_PARTS: Final = 2
"""Of a path such as /home, the root among them."""


@dataclass(frozen=True)
class TrustPolicy:
    """Whose files are trusted.

    Attributes:
        owners: User ids.
    """

    owners: frozenset[int]

    @classmethod
    def of_this_user(cls) -> TrustPolicy:
        """Trust the user of this process, and root."""
        return cls.of_user(os.geteuid())

    @classmethod
    def of_user(cls, uid: int) -> TrustPolicy:
        """Trust the user of a supervisor, and root."""
        return cls(frozenset({ROOT_UID, uid}))

    @property
    def supervisor_uid(self) -> int:
        """The user as whom specs are run."""
        return max(self.owners, default=ROOT_UID)

    def judge_folder(self, folder: Path, *, link: Path | None = None) -> None:
        """Return if `folder` and what it holds can be trusted to be the owner's.

        Raises:
            UntrustedError: It belongs to another user or others may write to it; the hint says what fixes
                it.
            OSError: It cannot be looked at.
        """
        # By descriptor: what is judged is one folder, whatever its name leads to a moment later.
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.judge(folder, os.fstat(descriptor), link=link)
            self._judge_parents(folder, descriptor, link)
        finally:
            os.close(descriptor)

    def _judge_parents(self, folder: Path, descriptor: int, link: Path | None) -> None:
        """Judge the folders above a folder, up to the root: who may write there may replace it."""
        current, name = os.dup(descriptor), folder
        try:
            while True:
                above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=current)
                own, status = os.fstat(current), os.fstat(above)
                os.close(current)
                current = above
                if os.path.samestat(own, status):
                    return
                name = name.parent
                if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
                    raise UntrustedError(
                        f"{name} can be written by all users, so {folder} can be exchanged",
                        hint=self._remedy_of_rights("chmod o-w", name, status, link),
                    )
        finally:
            os.close(current)

    def judge(
        self,
        path: Path,
        status: os.stat_result,
        *,
        link: Path | None = None,
        is_copied_to: Path | None = None,
    ) -> None:
        """Return if what `status` says of `path` lets it be trusted.

        Args:
            path: A file or folder.
            status: Of it, or of what it leads to.
            link: The spec in the jobs folder that led there, if links did.
            is_copied_to: The folder into which a file of another user may be copied; None where it lies.

        Raises:
            UntrustedError: It does not; the hint says what fixes it.
        """
        if status.st_uid not in self.owners:
            raise UntrustedError(
                f"{path} belongs to {account_name(status.st_uid)}, not to the user of the supervisor or root",
                hint=self._remedy_of_owner(path, status, link, is_copied_to),
            )
        if status.st_mode & stat.S_IWOTH:
            raise UntrustedError(
                f"{path} can be written by all users, and what it says is run",
                hint=self._remedy_of_rights("chmod o-w", path, status, link),
            )
        if status.st_mode & stat.S_IWGRP:
            self._judge_granted(path, status, self._remedy_of_rights("chmod g-w", path, status, link))

    def _remedy_of_rights(self, command: str, path: Path, status: os.stat_result, link: Path | None) -> str:
        if link is not None and status.st_uid != self.supervisor_uid:
            return _copy_for_link(link, account_name(self.supervisor_uid))
        return as_owner(status.st_uid, f"{command} {quoted(path)}")

    def _judge_granted(self, path: Path, status: os.stat_result, remedy: str) -> None:
        """Judge who may write besides the owner: the group, and with an access list also users and groups."""
        try:
            granted = read_access_list(path, status.st_mode)
        except OSError as error:
            raise UntrustedError(
                f"{path}: who may write there cannot be found out: {error.strerror}",
                hint=remedy,
            ) from error
        for gid, permissions in granted.granted_groups(status.st_gid).items():
            if permissions & WRITE and not _is_own_group(status.st_uid, gid):
                raise UntrustedError(
                    f"{path} can be written by the group {group_name(gid)}, and what it says is run",
                    hint=remedy,
                )
        for uid, permissions in granted.users.items():
            if permissions & WRITE and uid not in self.owners:
                raise UntrustedError(
                    f"{path} can be written by the user {account_name(uid)}, and what it says is run",
                    hint=remedy,
                )

    def _remedy_of_owner(
        self, path: Path, status: os.stat_result, link: Path | None, is_copied_to: Path | None
    ) -> str:
        """Return what fixes a foreign owner without taking away from another user what is theirs.

        Only what lies in the supervisor's own folders is given to it. A file elsewhere is copied, and a
        folder elsewhere is left alone.
        """
        user = account_name(self.supervisor_uid)
        if link is not None:
            return _copy_for_link(link, user)
        if stat.S_ISDIR(status.st_mode):
            if _is_shared_place(path) or _is_in_home_of(status.st_uid, path):
                return f"keep specs in a folder of {user}'s own, and name that one with --jobs"
            return f"sudo chown {user} {quoted(path)}"
        if is_copied_to is not None and is_copied_to != path.parent:
            copy = is_copied_to / path.name
            install = as_root(f"install -o {user} -m 600 {quoted(path)} {quoted(copy)}")
            return f"name a copy that you have read: {install}"
        return f"sudo chown {user} {quoted(path)}"

    def judge_links(self, path: Path) -> None:
        """Judge every folder that a chain of symbolic links beginning at `path` leads through.

        The folder that holds `path` itself is not judged.

        Raises:
            UntrustedError: Another user could make the chain lead elsewhere.
            OSError: A link cannot be looked at.
        """
        first = path
        for _ in range(_LINKS_MAX):
            if not path.is_symlink():
                return
            path = path.parent / path.readlink()
            self.judge_folder(path.parent, link=first)


def _is_own_group(uid: int, gid: int) -> bool:
    """Return whether a group is its user's own: of the same name, and of no other user's, in any way."""
    try:
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    if group.gr_name != owner.pw_name or not set(group.gr_mem) <= {owner.pw_name}:
        return False
    return all(other.pw_uid == uid for other in pwd.getpwall() if other.pw_gid == gid)


def _copy_for_link(link: Path, user: str) -> str:
    """Return what leaves the target to its owner; relative paths in it began at the link's folder anyway."""
    target = Path(os.path.realpath(link))
    install = as_root(f"install -o {user} -m 644 {quoted(target)} {quoted(link)}")
    return f"put a copy that you have read in the place of the link: {install}"


def remedy_of_rights(path: Path) -> str:
    """Return what lets this user read a spec that it may not read."""
    user = account_name(os.geteuid())
    try:
        status = path.stat()
    except OSError:  # a folder on the way to it is closed
        if not path.is_symlink():
            return "run this as a user who may read it"
        return _copy_for_link(path, user)
    if status.st_uid == os.geteuid():
        return f"chmod u+r {quoted(path)}"
    if path.is_symlink():
        return _copy_for_link(path, user)
    if owner_of(path.parent) == os.geteuid():  # a folder of this user's own: so is what lies in it
        return f"sudo chown {user} {quoted(path)}"
    return f"run this as a user who may read it, such as {account_name(status.st_uid)}"


def _is_in_home_of(uid: int, folder: Path) -> bool:
    """Return whether a folder lies in the home of the user to whom it belongs: it is not to be taken away."""
    try:
        home = Path(os.path.realpath(pwd.getpwuid(uid).pw_dir))
    except KeyError:
        return False
    return len(home.parts) > _TOP_PARTS and home in Path(os.path.realpath(folder)).parents


def _is_shared_place(folder: Path) -> bool:
    """Return whether a folder is one that is never to be given to a service: a home, or one at the top."""
    folder = Path(os.path.realpath(folder))
    homes = {Path(each.pw_dir) for each in pwd.getpwall() if each.pw_dir and each.pw_uid != os.geteuid()}
    return len(folder.parts) <= _TOP_PARTS or any(folder == home or folder in home.parents for home in homes)
