"""The priority of a standby process while it is prepared, and the job's own when it is used.

Invariant: it is lowered only where raising it again is allowed, which needs a privilege or a limit
(`ulimit -e`) that users seldom have. Elsewhere it stays as it is.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_NICE_MAX = 19


@dataclass(frozen=True)
class Priority:
    """What decides which process runs first.

    Attributes:
        policy: Of the scheduler, with its flags.
        nice: From -20, first, to 19.
    """

    policy: int
    nice: int


def priority_of(pid: int) -> Priority:
    """Return the priority of a process, or of a thread.

    Raises:
        OSError: It has ended.
    """
    return Priority(os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid))


def lower(pid: int) -> None:
    """Have a process run when nothing else does.

    Raises:
        OSError: It may not, or it has ended.
    """
    os.setpriority(os.PRIO_PROCESS, pid, _NICE_MAX)
    os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def restore(pid: int, priority: Priority) -> None:
    """Give every thread of a process a priority.

    Raises:
        OSError: It may not be raised, or the process has ended.
    """
    for task in Path(f"/proc/{pid}/task").iterdir():
        thread = int(task.name)
        if priority_of(thread) != priority:
            os.sched_setscheduler(thread, priority.policy, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, thread, priority.nice)


def can_be_restored() -> bool:
    """Return whether this process may undo `lower`: a child tries it on itself."""
    before = priority_of(0)
    if before.policy not in {os.SCHED_OTHER, os.SCHED_BATCH}:
        return False
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(OSError):
            lower(0)
            restore(os.getpid(), before)
            code = int(priority_of(0) != before)
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
