"""Who may have written a spec: cron's rule.

A spec runs commands as the daemon's user, so whoever can write one can do all that this user can. Therefore
the folder and the spec belong to that user or to root, and nobody else may write to them. Of a symbolic link
the folder that holds the link, the target, and the folder that holds the target are judged, for each link on
the way.

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

from trainerd.errors import UntrustedError

_LINKS_MAX: Final = 40  # as the kernel has it


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
        return cls(frozenset({0, os.geteuid()}))

    def judge_folder(self, folder: Path) -> None:
        """Return if `folder` and what it holds can be trusted to be the owner's.

        Raises:
            UntrustedError: It belongs to somebody else or others may write to it; the hint says what mends
                it.
            OSError: It cannot be looked at.
        """
        # By descriptor: what is judged is one folder, whatever its name leads to a moment later.
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.judge(folder, os.fstat(descriptor))
            self._judge_parents(folder, descriptor)
        finally:
            os.close(descriptor)

    def _judge_parents(self, folder: Path, descriptor: int) -> None:
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
                        f"{name} can be written by everybody, so {folder} can be exchanged",
                        hint=f"chmod o-w {name}, or chmod +t {name}",
                    )
        finally:
            os.close(current)

    def judge(self, path: Path, status: os.stat_result) -> None:
        """Return if what `status` says of `path` lets it be trusted.

        Raises:
            UntrustedError: It does not; the hint says what mends it.
        """
        if status.st_uid not in self.owners:
            raise UntrustedError(
                f"{path} belongs to {_user_name(status.st_uid)}, not to the user of the supervisor or root",
                hint=f"sudo chown {_user_name(os.geteuid())} {path}",
            )
        if status.st_mode & stat.S_IWOTH:
            raise UntrustedError(
                f"{path} can be written by everybody, and what it says is run", hint=f"chmod o-w {path}"
            )
        if status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_uid, status.st_gid):
            raise UntrustedError(
                f"{path} can be written by the group {_group_name(status.st_gid)}, and what it says is run",
                hint=f"chmod g-w {path}",
            )

    def judge_links(self, path: Path) -> None:
        """Judge every folder that a chain of symbolic links beginning at `path` leads through.

        The folder that holds `path` itself is not judged.

        Raises:
            UntrustedError: Somebody else could make the chain lead elsewhere.
            OSError: A link cannot be looked at.
        """
        for _ in range(_LINKS_MAX):
            if not path.is_symlink():
                return
            path = path.parent / path.readlink()
            self.judge_folder(path.parent)


def _is_own_group(uid: int, gid: int) -> bool:
    try:
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == owner.pw_name and set(group.gr_mem) <= {owner.pw_name}


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
