"""The jobs folder, as those see it who change it: one at a time, and with errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

from trainerd.contract.clock import SystemClock
from trainerd.errors import LockedError, UserError
from trainerd.supervisor.specs.folder import is_spec_name
from trainerd.supervisor.specs.load import claimed_name, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME: Final = ".trainerd-submit.lock"
"""File in the jobs folder that is locked; no spec. The folder itself is locked by its supervisor."""

LOCK_LIMIT_S: Final = 5.0
LOCK_RETRY_S: Final = 0.02


def specs_of(name: str, jobs_dir: Path) -> list[Path]:
    """Return the files in the jobs folder that give the job `name`, or seem to."""
    found = []
    for path in sorted(jobs_dir.iterdir()):
        if not is_spec_name(path.name) or path.is_dir():
            continue
        try:
            data, _ = read_bytes(path, None)
        except (UserError, OSError):
            data = b""
        if (claimed_name(path, data) or path.stem) == name:
            found.append(path)
    return found


@contextlib.contextmanager
def locked(jobs_dir: Path) -> Iterator[None]:
    """Keep others who submit at the same moment waiting, so that none overwrites what it did not see."""
    with translated(jobs_dir):
        path = jobs_dir.resolve(strict=True) / LOCK_NAME
        descriptor = _lock(path, jobs_dir)
    if descriptor is None:
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is locked: who has opened it already sees that it is gone
        os.close(descriptor)


def _lock(path: Path, jobs_dir: Path) -> int | None:
    """Return a descriptor of the locked file, None where the disk has no room for an empty file.

    A spec can be removed there all the same.
    """
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + LOCK_LIMIT_S
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                return None
            raise
        try:
            _await_older_versions(jobs_dir)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                return descriptor
        except BlockingIOError as error:
            if clock.monotonic_s() >= deadline_s:
                os.close(descriptor)
                raise LockedError(
                    f"another process has been submitting to {jobs_dir} for {LOCK_LIMIT_S:.0f} s",
                    hint="try again; a stopped `trainerd submit` may be in the way",
                ) from error
        except OSError:  # a filesystem without locks: two who submit at once may overwrite each other
            os.close(descriptor)
            return None
        os.close(descriptor)
        time.sleep(LOCK_RETRY_S)


def _await_older_versions(jobs_dir: Path) -> None:
    """Raise BlockingIOError while a `trainerd submit` of an older version locks the folder itself.

    A supervisor shares its lock of the folder.
    """
    folder = os.open(jobs_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.close(folder)


def _is_at(path: Path, descriptor: int) -> bool:
    """Return whether a file still has its name: the one who held the lock before removed the name."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def translated(jobs_dir: Path) -> Iterator[None]:
    """Turn what may be wrong with the folder into errors for the user."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(
            f"there is no jobs folder {jobs_dir}", hint="make it, or name the one that the supervisor watches"
        ) from error
    except NotADirectoryError as error:
        raise UserError(f"{jobs_dir} is not a folder") from error
    except PermissionError as error:
        raise UserError(
            f"this user may not write to the jobs folder {jobs_dir}",
            hint="submit as the user that the supervisor runs as",
        ) from error
