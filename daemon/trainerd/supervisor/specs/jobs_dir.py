"""The jobs folder, as those see it who change it: one at a time, and with errors that say what to do."""

from __future__ import annotations

import contextlib
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
        descriptor = os.open(jobs_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _wait_for_lock(descriptor, jobs_dir)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, jobs_dir: Path) -> None:
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + LOCK_LIMIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if clock.monotonic_s() >= deadline_s:
                raise LockedError(
                    f"somebody else has been submitting to {jobs_dir} for {LOCK_LIMIT_S:.0f} s",
                    hint="try again; a stopped `trainerd submit` may be in the way",
                ) from error
            time.sleep(LOCK_RETRY_S)
        else:
            return


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
