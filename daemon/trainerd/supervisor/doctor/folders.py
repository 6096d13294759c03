"""The folders: whose they are, who may write, on what they lie, how much room there is, who answers."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from trainerd.contract.counted import counted
from trainerd.contract.folder_owner import account_name, as_owner, as_root, quoted
from trainerd.errors import UserError
from trainerd.supervisor.api.unix_socket import is_answered
from trainerd.supervisor.doctor.finding import broken, ok, skipped, warning
from trainerd.supervisor.doctor.state_rights import judged_access, judged_privacy
from trainerd.supervisor.specs.folder import is_spec_name
from trainerd.supervisor.specs.load import load_spec
from trainerd.supervisor.specs.trust import TrustPolicy
from trainerd.supervisor.specs.watch import filesystem_kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trainerd.contract.paths import StatePaths
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.supervisor.doctor.finding import Finding

FREE_BYTES_MIN: Final = 1024**3
"""Below this a checkpoint may not fit."""
FREE_SHARE_MIN: Final = 0.05
FREE_INODES_MIN: Final = 10_000

NETWORK_KINDS: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs", "virtiofs"}
)
MEMORY_KINDS: Final = frozenset({"tmpfs", "ramfs"})

_GIB: Final = 1024**3


def check_state_folder(
    state: StatePaths, uid: int | None = None, *, start_command: str | None = None
) -> Iterator[Finding]:
    """Look at the state folder itself.

    Args:
        state: The folder.
        uid: The user of the supervisor, by whom it is judged; None is this user.
        start_command: What starts a supervisor there, and so makes the folder.
    """
    root, uid = state.root, os.geteuid() if uid is None else uid
    try:
        status = root.stat()
    except FileNotFoundError:
        yield broken(
            "state folder",
            f"{root} is not there",
            f"`{start_command or f'trainerd run --state {quoted(root)}'}` makes it; "
            "or name the right one with --state",
        )
        return
    except OSError as error:
        yield _not_to_be_seen("state folder", root, error, uid)
        return
    if not stat.S_ISDIR(status.st_mode):
        yield broken("state folder", f"{root} is not a folder", "move it away, or choose another --state")
        return
    yield judged_access(state, status, uid)
    yield from judged_privacy(state, status)
    yield from check_filesystem("state folder", root)
    yield from check_room(root)


def _not_to_be_seen(check: str, path: Path, error: OSError, uid: int) -> Finding:
    """Say that this user may not look, which is no fault of the installation."""
    if isinstance(error, PermissionError):
        message = f"{path} cannot be looked at by this user: ask as {account_name(uid)} or root"
        return skipped(check, f"{message} (sudo trainerd doctor)")
    return broken(check, f"{path} cannot be looked at: {error.strerror}", "look at its disk")


def check_filesystem(check: str, folder: Path) -> Iterator[Finding]:
    """Look at the kind of filesystem that a folder is on."""
    kind = filesystem_kind(folder) or "unknown"
    if kind in MEMORY_KINDS:
        yield warning(
            check,
            f"{folder} is on {kind}: a restart of the machine loses all of it",
            "choose a folder on a disk, unless that is what you want",
        )
    elif kind in NETWORK_KINDS or kind.startswith("fuse."):
        yield warning(
            check,
            f"{folder} is on {kind}: locks and the journal (SQLite in WAL mode) hold on one machine only",
            "keep the state on a local disk, one folder a machine, and mirror checkpoints instead",
        )
    else:
        yield ok(check, f"{folder} is on {kind}")


def check_room(folder: Path) -> Iterator[Finding]:
    """Look at how much room a folder has."""
    found = os.statvfs(folder)
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    shown = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB are free on the disk of {folder}"
    if free < FREE_BYTES_MIN or (total and free / total < FREE_SHARE_MIN and free < 10 * _GIB):
        yield warning("disk space", shown, "make room: a job that cannot save pauses until there is some")
    elif found.f_files and found.f_favail < FREE_INODES_MIN:
        yield warning(
            "disk space", f"{found.f_favail} inodes are free on the disk of {folder}", "delete small files"
        )
    else:
        yield ok("disk space", shown)


def check_socket(
    state: StatePaths, uid: int | None = None, *, start_command: str | None = None
) -> Iterator[Finding]:
    """Check whether a supervisor answers on the socket, if one should.

    Args:
        state: The folder.
        uid: The user of the supervisor; None is this user.
        start_command: What starts a supervisor there.
    """
    uid = os.geteuid() if uid is None else uid
    try:
        found = state.socket.lstat()
    except PermissionError as error:
        yield _not_to_be_seen("supervisor", state.socket, error, uid)
        return
    except OSError:
        yield skipped("supervisor", f"no supervisor runs on {state.root}")
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield broken(
            "supervisor",
            f"{state.socket} is in the way: it is not a socket",
            as_owner(found.st_uid, f"mv {quoted(state.socket)} {quoted(state.socket)}.aside"),
        )
        return
    if stat.S_IMODE(found.st_mode) & 0o007:
        yield warning(
            "supervisor",
            f"{state.socket} is open to all users by its mode",
            as_owner(found.st_uid, f"chmod o-rwx {quoted(state.socket)}"),
        )
    try:
        answers = is_answered(state.socket)
    except PermissionError as error:
        yield _not_to_be_seen("supervisor", state.socket, error, uid)
        return
    except OSError as error:
        yield warning("supervisor", f"{state.socket} cannot be asked: {error.strerror}", "look at its disk")
        return
    if answers:
        yield ok("supervisor", f"a supervisor answers on {state.socket}")
    else:
        yield warning(
            "supervisor",
            f"{state.socket} is stale: its supervisor was killed; jobs go on without one",
            "start it again, it replaces the socket: "
            f"{start_command or f'trainerd run --state {quoted(state.root)}'}",
        )


def check_jobs_folder(jobs_dir: Path, uid: int | None = None) -> Iterator[Finding]:
    """Look at the jobs folder: a user who may write there runs commands as the supervisor.

    Args:
        jobs_dir: The folder.
        uid: The user of the supervisor; None is this user.
    """
    uid = os.geteuid() if uid is None else uid
    try:
        TrustPolicy.of_user(uid).judge_folder(jobs_dir)
    except FileNotFoundError:
        make = f"mkdir -m 755 {quoted(jobs_dir)}"
        if uid != os.geteuid():
            make = as_root(f"install -d -o {account_name(uid)} -m 755 {quoted(jobs_dir)}")
        yield broken("jobs folder", f"{jobs_dir} is not there", make)
        return
    except UserError as error:
        yield broken("jobs folder", error.message, error.hint or "")
        return
    except OSError as error:
        yield _not_to_be_seen("jobs folder", jobs_dir, error, uid)
        return
    yield ok("jobs folder", f"{jobs_dir} belongs to the right user, and no other user may write there")
    kind = filesystem_kind(jobs_dir)
    if kind in NETWORK_KINDS or kind.startswith("fuse."):
        yield ok("jobs folder", f"it is on {kind}, which tells of no changes: it is looked at every second")


def check_specs(jobs_dir: Path, uid: int | None = None) -> tuple[list[Finding], list[ResolvedJob]]:
    """Look at each spec as its supervisor does; return what was found, and the jobs of the good ones."""
    trust = TrustPolicy.of_user(os.geteuid() if uid is None else uid)
    findings, jobs = [], []
    try:
        paths = sorted(path for path in jobs_dir.iterdir() if is_spec_name(path.name))
    except OSError:
        return [skipped("specs", f"{jobs_dir} cannot be read")], []
    for path in paths:
        try:
            jobs.append(load_spec(path, trust=trust))
        except UserError as error:
            findings.append(warning("specs", error.message, error.hint or "`trainerd validate` says more"))
        except OSError as error:
            findings.append(warning("specs", f"{path} cannot be read: {error.strerror}", "look at its disk"))
    return [ok("specs", f"{len(jobs)} of {counted(len(paths), 'spec')} can be accepted"), *findings], jobs
