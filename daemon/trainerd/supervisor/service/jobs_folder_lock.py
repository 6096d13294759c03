"""One supervisor per jobs folder: two with different state folders would run every job twice.

The folder itself is locked, so nothing is written into it and a folder that only may be read will do. The
kernel drops the lock with the process, however that ends; the descriptor is passed on at a reload and
inherited by no child. Any user who may read the folder can lock it, so only the lock of a process that could
be such a supervisor counts: one of our user, of root, or of the folder's owner.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import structlog

from trainerd.errors import LockedError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

VARIABLE: Final = "TRAINERD_HANDOVER_JOBS"

LOCK_TRIES: Final = 10
LOCK_RETRY_S: Final = 0.02
"""Between two tries: those who submit lock the folder for some microseconds."""

_FORM: Final = re.compile(r"1 pid=(\d+) lock=(\d+)", re.ASCII)
_LOCKS: Final = Path("/proc/locks")
_FLOCK: Final = re.compile(
    r"\d+: FLOCK +\w+ +\w+ +(-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.ASCII | re.MULTILINE
)

_log = structlog.get_logger(__name__)


class JobsFolderLock:
    """Lock of a jobs folder, held by a supervisor for as long as it lives.

    Args:
        folder: The folder.
        environ: Where the program before this one, in the same process, says how it holds it already.

    Raises:
        LockedError: Another supervisor runs on it; the message names its process.
    """

    def __init__(self, folder: Path, environ: MutableMapping[str, str] = os.environ) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        self._tried: tuple[int, int] | None = None
        inherited = _inherited(folder, environ)
        if inherited is None:
            self.keep()
        else:
            self._take(inherited)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def descriptor(self) -> int | None:
        """Descriptor by which the folder is held, None if it cannot be locked here."""
        return self._descriptor

    def keep(self) -> None:
        """Lock the folder that has the name now: it may have been deleted and made again.

        Raises:
            LockedError: Another supervisor runs on it.
        """
        try:
            status = self._folder.stat()
            if (status.st_dev, status.st_ino) == self._tried:
                return
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if self._tried is None:
                _say_not_locked(self._folder, error)
            return  # the scan says what is wrong with the folder
        self._take(descriptor)

    def _take(self, descriptor: int) -> None:
        try:
            is_held = _lock(descriptor, self._folder)
        except LockedError:
            os.close(descriptor)
            raise
        status = os.fstat(descriptor)
        self._tried = status.st_dev, status.st_ino
        self.close()  # only now: while the old folder is open, no new one has its number
        if is_held:
            self._descriptor = descriptor
        else:
            os.close(descriptor)

    def close(self) -> None:
        """Give the lock up, as the end of the process does."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def offer_lock(descriptor: int | None, environ: MutableMapping[str, str] = os.environ) -> None:
    """Leave a lock to the next program of this process."""
    if descriptor is not None:
        os.set_inheritable(descriptor, True)
        environ[VARIABLE] = f"1 pid={os.getpid()} lock={descriptor}"


def _inherited(folder: Path, environ: MutableMapping[str, str]) -> int | None:
    found = _FORM.fullmatch(environ.pop(VARIABLE, ""))
    if found is None or int(found[1]) != os.getpid():
        return None
    descriptor = int(found[2])
    try:
        os.set_inheritable(descriptor, False)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
        os.close(descriptor)  # another folder has its name now
    except OSError:
        pass
    return None


def _lock(descriptor: int, folder: Path) -> bool:
    try:
        _lock_alone_then_share(descriptor)
    except BlockingIOError as error:
        holder = _holder(os.fstat(descriptor))
        if holder is not None and not _may_supervise(holder, os.fstat(descriptor)):
            _say_not_locked(folder, f"process {holder} of another user holds its lock")
            return False
        raise LockedError(
            f"{folder}: another supervisor (process {holder or 'unknown'}) runs the jobs of this folder, "
            "with another state folder",
            hint="use that one, stop it, or give this one another --jobs",
        ) from error
    except OSError as error:  # a filesystem without locks of folders, such as some of a network
        _say_not_locked(folder, error)
        return False
    return True


def _lock_alone_then_share(descriptor: int) -> None:
    """Lock a folder that no other supervisor holds, so that those who submit see no exclusive lock.

    Raises:
        BlockingIOError: Another process holds it for longer than one that submits looks at it.
    """
    for left in reversed(range(LOCK_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Not in one step: of two that start at the same moment, one is refused here.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if not left:
                raise
            time.sleep(LOCK_RETRY_S)
        else:
            return


def _holder(status: os.stat_result) -> int | None:
    """Return the process that locks a file, None if that is not to be seen."""
    try:
        text = _LOCKS.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    for pid, major, minor, inode in _FLOCK.findall(text):
        device = os.makedev(int(major, 16), int(minor, 16))
        if (device, int(inode)) == (status.st_dev, status.st_ino) and int(pid) > 0:
            return int(pid)
    return None


def _may_supervise(pid: int, status: os.stat_result) -> bool:
    try:
        owner = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return True  # it has just ended, or is not to be seen: unknown counts as one
    return owner in {0, os.geteuid(), status.st_uid}


def _say_not_locked(folder: Path, why: object) -> None:
    _log.warning("supervisor.jobs-folder-not-locked", folder=str(folder), reason=str(why))
