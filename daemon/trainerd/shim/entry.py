"""The door to an attempt: at most one shim ever passes it, and none passes once the attempt is void.

Invariants: the process that writes ``shim.json`` or ``void.json`` holds the lock. A shim that has the lock
and finds neither of them, nor an exit record, is the first and the only one. The lock falls with its holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract import records
from trainerd.contract.failpoints import declare
from trainerd.contract.process import ProcessIdentity, identify
from trainerd.contract.records import ExitRecord, LaunchRecord, ShimRecord, VoidRecord
from trainerd.errors import CorruptError, InternalError, LockedError, UserError
from trainerd.shim.cgroup import planned_folders
from trainerd.shim.persistence import write_persistently

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.contract.clock import Clock
    from trainerd.contract.paths import AttemptPaths

LOCK_WAIT_S: Final = 5.0
"""How long a shim waits for the lock: another holds it for a moment while it declares the attempt void."""
LOCK_RETRY_S: Final = 0.02

SHIM_RECORD_PATIENCE_S: Final = 60.0
"""How long a shim tries to record itself. It has started nothing yet, so giving up loses nothing."""

SHIM_LOCKED = declare(
    "shim.locked", "nothing but a free lock: the attempt never started, and the supervisor declares it void"
)
SHIM_RECORDED = declare(
    "shim.recorded", "a shim on record that is dead, no rank: the attempt is lost, and the next one starts"
)


@dataclass(frozen=True)
class Admission:
    """Leave to start the ranks.

    Attributes:
        launch: What to start.
        shim: Who this process is; on record.
        started_wall_s: Since when, seconds since the epoch.
        started_monotonic_s: The same moment, by the clock that does not jump.
        cgroups: Which folders of cgroups are on record for it, to be made.
    """

    launch: LaunchRecord
    shim: ProcessIdentity
    started_wall_s: float
    started_monotonic_s: float
    cgroups: tuple[str, ...] = ()


@contextlib.contextmanager
def admit(paths: AttemptPaths, clock: Clock) -> Iterator[Admission]:
    """Pass the door, and keep it shut behind this process for as long as the context lasts.

    Raises:
        LockedError: Another shim is minding this attempt.
        UserError: The attempt is void, or has been started before.
        CorruptError: There is no launch record, or none that can be read.
        SpaceError: The disk stayed full for longer than `SHIM_RECORD_PATIENCE_S`.
    """
    started_wall_s, started_monotonic_s = clock.wall_s(), clock.monotonic_s()
    launch = records.read(paths.launch, LaunchRecord)
    if launch is None:
        raise CorruptError(f"{paths.launch}: there is no such record, so there is nothing to start")
    if len(launch.log_paths) != launch.nproc or launch.nproc < 1 or not launch.command:
        raise CorruptError(f"{paths.launch}: it needs a command, at least one rank, and one log a rank")
    with held_lock(paths, clock, wait_s=LOCK_WAIT_S):
        SHIM_LOCKED.hit()
        refuse_if_used(paths)
        shim = identify(os.getpid())
        if shim is None:
            raise InternalError("/proc does not show this process to itself")
        cgroups = planned_folders(launch, shim)
        record = ShimRecord(shim, started_wall_s, cgroups)
        write_persistently(paths.shim, record, clock, patience_s=SHIM_RECORD_PATIENCE_S)
        SHIM_RECORDED.hit()
        yield Admission(launch, shim, started_wall_s, started_monotonic_s, cgroups)


def refuse_if_used(paths: AttemptPaths) -> None:
    """Raise UserError if the attempt is void, running or over. Asked under the lock.

    A record that exists and cannot be read counts as one that exists.
    """
    for path, kind, meaning in (
        (paths.void, VoidRecord, "was declared void"),
        (paths.shim, ShimRecord, "has been started before"),
        (paths.exit, ExitRecord, "is over"),
    ):
        try:
            is_there = records.read(path, kind) is not None
        except CorruptError:
            is_there = True
        if is_there:
            raise UserError(f"{paths.root}: this attempt {meaning} ({path.name} exists); nothing was started")


@contextlib.contextmanager
def held_lock(paths: AttemptPaths, clock: Clock, *, wait_s: float) -> Iterator[None]:
    """Hold the attempt's lock.

    Args:
        paths: Of the attempt.
        clock: Measures the wait.
        wait_s: How long to try, in seconds; 0 tries once.

    Raises:
        LockedError: Another process held it all that time.
    """
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline_s = clock.monotonic_s() + wait_s
        while not _try_lock(descriptor):
            if clock.monotonic_s() >= deadline_s:
                raise LockedError(f"{paths.lock}: a shim is minding this attempt")
            time.sleep(LOCK_RETRY_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
