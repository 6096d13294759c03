"""Finds and ends the descendants of an attempt, even those that changed session, parent or environment.

While the shim lives, every orphan comes to it (it is a subreaper), so it can kill its children until it has
none: that is proof, whatever they do. Once the shim is gone, the attempt's cgroup (`cgroup`) has all of them,
where there is one. Where there is none, and for the odd process that was moved out of it, three ways lead to
them: the mark in the environment that descendants inherit, the identities on record, and the children and
session-mates of those already found.

A stranger cannot be hit: a child that was not collected keeps its number, and every other process began after
the shim and is signalled through a descriptor that was opened first and identified after.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract.environment import ATTEMPT_ID
from trainerd.contract.process import ProcessIdentity, boot_id, open_pidfd
from trainerd.shim.process_table import (
    ProcessRow,
    carries,
    child_pids,
    has_title,
    marks,
    processes_since,
    with_command_line,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from trainerd.contract.clock import Clock

SURVIVORS_LIMIT_S: Final = 30.0
"""How long descendants are killed, searched for and waited for. Only one stuck in the kernel takes longer."""

WAITING_TITLE: Final = "trainerd-standby"
"""Begins the command line of a shim that has no attempt yet."""

_WAVE_S: Final = 0.5
"""How long one wave of kills is waited for before the next search."""

_CHILD_WAIT_S: Final = 0.05
"""How long the end of a child is waited for before those who came meanwhile are looked for."""


@dataclass(frozen=True)
class SurvivorsEnded:
    """What `end_processes` did: how many it killed, and who would not go."""

    killed: int
    left: tuple[ProcessIdentity, ...]


def attempt_mark(attempt_dir: Path, shim: ProcessIdentity) -> str:
    """Return the value of TRAINERD_ATTEMPT_ID by which all descendants of a shim are known.

    The folder alone would not do: a container may have the same path, and its processes are seen from
    outside.
    """
    return f"{attempt_dir}@{shim.boot_id[:8]}-{shim.pid}-{shim.start_ticks}"


def shim_by_mark(attempt_dir: Path) -> ProcessIdentity | None:
    """Return the shim of an attempt, by the mark of its processes or its own name; None if none lives.

    For an attempt whose records are gone: its folder was deleted while it ran. One that only waits with a
    standby, and was prepared for that attempt, is not its shim.
    """
    boot = boot_id()
    for mark in marks(ATTEMPT_ID, f"{attempt_dir}@").values():
        found = _MARK_END.fullmatch(mark.rpartition("@")[2])
        if found is not None and boot.startswith(found["boot"]):
            shim = ProcessIdentity(int(found["pid"]), int(found["ticks"]), boot)
            if not has_title(shim.pid, WAITING_TITLE):
                return shim
    for form in (f"trainerd.shim {attempt_dir}", f": {attempt_dir}"):
        for identity in with_command_line(os.fsencode(form)):
            return identity
    return None


_MARK_END: Final = re.compile(r"(?P<boot>[0-9a-f]{8})-(?P<pid>[0-9]+)-(?P<ticks>[0-9]+)")


def find_descendants(
    mark: str, *, since_ticks: int, known: Collection[ProcessIdentity] = ()
) -> tuple[ProcessIdentity, ...]:
    """Return every living descendant of an attempt, this process itself never.

    Args:
        mark: As made by `attempt_mark`.
        since_ticks: When the shim began; a process that began earlier is a stranger.
        known: Identities of processes that belong to it, such as the ranks.
    """
    entry = f"{ATTEMPT_ID}={mark}".encode()
    rows = {row.identity.pid: row for row in processes_since(since_ticks) if row.identity.pid != os.getpid()}
    found = {pid for pid, row in rows.items() if row.identity in known or carries(pid, entry)}
    while relatives := {pid for pid, row in rows.items() if pid not in found and _is_relative(row, found)}:
        found |= relatives
    return tuple(rows[pid].identity for pid in sorted(found))


def _is_relative(row: ProcessRow, found: Collection[int]) -> bool:
    return row.parent_pid in found or row.session_id in found


def end_processes(
    find: Callable[[], Collection[ProcessIdentity]], clock: Clock, *, limit_s: float, empty_looks: int = 1
) -> SurvivorsEnded:
    """Kill whom `find` returns, until it finds none.

    Args:
        find: Looks for those who still live.
        clock: Measures the limit.
        limit_s: After so many seconds, those who are left are returned.
        empty_looks: How often in a row none must be found: one that forks and leaves can hide from a look.
    """
    deadline_s = clock.monotonic_s() + limit_s
    killed: set[ProcessIdentity] = set()
    looks_left = empty_looks
    while True:
        living = tuple(find())
        looks_left = empty_looks if living else looks_left - 1
        if looks_left == 0 or clock.monotonic_s() >= deadline_s:
            return SurvivorsEnded(len(killed), living)
        killed |= _kill_and_wait(living)


def end_children(collect: Callable[[], bool], clock: Clock, *, limit_s: float) -> set[int]:
    """Kill the children of this process until it has none, and so no descendants; return who was killed.

    Args:
        collect: Reaps every child that has ended; returns whether any is left.
        clock: Measures the limit.
        limit_s: When to give up, in seconds.
    """
    deadline_s = clock.monotonic_s() + limit_s
    killed: set[int] = set()
    while collect() and clock.monotonic_s() < deadline_s:
        for pid in child_pids():
            # Only `collect` reaps, so the number still is that child's.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        signal.sigtimedwait([signal.SIGCHLD], _CHILD_WAIT_S)
    return killed


def _kill_and_wait(living: Collection[ProcessIdentity]) -> set[ProcessIdentity]:
    poller = select.poll()
    killed = set()
    with contextlib.ExitStack() as stack:
        descriptors = set()
        for identity in living:
            with contextlib.suppress(OSError):  # it cannot be observed now; the next search will show
                descriptor = open_pidfd(identity)
                if descriptor is None:
                    continue
                stack.callback(os.close, descriptor)
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                poller.register(descriptor, select.POLLIN)
                descriptors.add(descriptor)
                killed.add(identity)
        # One call waits for all in turn: those who have ended stay readable until they are unregistered.
        while descriptors:
            ended = poller.poll(_WAVE_S * 1000)
            if not ended:
                break
            for descriptor, _ in ended:
                poller.unregister(descriptor)
                descriptors.discard(descriptor)
    return killed
