"""The cgroup of the next attempt, made while its standby is prepared, for a job with a limit of memory.

A process cannot take memory that it holds into another cgroup, so the standby is born in the one in which the
attempt will run: what it holds counts in the attempt's limit from its first page on. Until it is used it may
hold no more than `WAITING_BYTES_MAX`, which the supervisor counts as taken.

Invariants: like that of any attempt it is named after its shim, on record before it is made, and removed with
the shim, whether it was used or not. One that was left behind is removed by the next standby of the job, or
when a supervisor starts.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract import records
from trainerd.contract.clock import SystemClock
from trainerd.contract.failpoints import declare
from trainerd.contract.process import is_alive
from trainerd.contract.records import ShimRecord
from trainerd.errors import CorruptError, UserError
from trainerd.shim.cgroup import AttemptCgroup, folders_of, planned_folders
from trainerd.shim.cgroup_members import remove_empty
from trainerd.shim.standby_recipe import WAITING_BYTES_MAX

if TYPE_CHECKING:
    from trainerd.contract.process import ProcessIdentity
    from trainerd.contract.records import LaunchRecord

_LEAVE_LIMIT_S: Final = 2.0
"""How long what is left in the cgroup of a standby that is not used may take to end."""

STANDBY_CGROUP_RECORDED: Final = declare(
    "standby.cgroup-recorded", "a record and perhaps an empty cgroup; the job's next standby removes both"
)


class StandbyCgroup:
    """The cgroup in which a standby is born.

    Args:
        record: Where it is on record, `standby.json` of the run.
        launch: What the attempt will start; it has a limit of memory.
        shim: Who this process is.

    Raises:
        UserError: No cgroup limits its memory.
        SpaceError: It cannot be put on record.
    """

    def __init__(self, record: Path, launch: LaunchRecord, shim: ProcessIdentity) -> None:
        assert launch.memory_bytes is not None, "without a limit there is nothing to count"
        self._record, self._limit_bytes = record, launch.memory_bytes
        self.planned = planned_folders(launch, shim)
        remove_left_behind(record)
        records.write(record, ShimRecord(shim, SystemClock().wall_s(), self.planned))
        STANDBY_CGROUP_RECORDED.hit()
        self.cgroup = AttemptCgroup.make(self.planned, min(launch.memory_bytes, WAITING_BYTES_MAX))
        if self.cgroup.memory_limit_bytes is None:
            self.remove()
            raise UserError("`resources.memory` is set, and no cgroup counts what a standby holds")

    def become_the_attempts(self) -> bool:
        """Allow it what the attempt may hold; return whether that was done.

        From then on it is on record as that of the attempt, by its shim.
        """
        is_done = self.cgroup.set_memory_limit(self._limit_bytes)
        with contextlib.suppress(OSError):
            self._record.unlink()
        return is_done

    def remove(self) -> None:
        """Remove it, with what is in there."""
        self.cgroup.end(_collect, SystemClock(), limit_s=_LEAVE_LIMIT_S)
        self.cgroup.remove()
        with contextlib.suppress(OSError):
            self._record.unlink()


def remove_left_behind(record: Path) -> tuple[Path, ...]:
    """Remove the cgroups of a standby whose shim was killed; return which those were."""
    with contextlib.suppress(CorruptError, OSError):
        found = records.read(record, ShimRecord)
        if found is not None and not is_alive(found.process):
            removed = [folder for folder in folders_of(found) if folder.exists() and remove_empty(folder)]
            record.unlink(missing_ok=True)
            return tuple(removed)
    return ()


def _collect() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
