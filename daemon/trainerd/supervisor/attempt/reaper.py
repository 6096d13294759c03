"""Collects orphans where the supervisor is process 1 of a container, to which every orphan comes.

As long as a shim lives, the orphans of its attempt come to the shim. What comes here are shims of an earlier
supervisor, what a killed shim left, and what ``docker exec`` left. Children that this process started itself
are left to the code that started them and wants to know how they ended.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Collection

LOOK_S: Final = 5.0
"""How often it is worth to look, in seconds."""


class OrphanReaper:
    """Reaps a zombie child that two looks in a row have seen, unless it is known to belong to other code.

    The first look leaves the code that started a child the time to collect it: only a zombie that no code
    wants stays until the second.
    """

    def __init__(self) -> None:
        self._seen: frozenset[int] = frozenset()

    def look(self, *, own: Collection[int] = ()) -> int:
        """Reap what the look before has seen too; return how many that were. `own` pids are left alone."""
        zombies = frozenset(pid for pid in _zombie_children() if pid not in own)
        reaped = [pid for pid in zombies & self._seen if _reap(pid)]
        self._seen = zombies.difference(reaped)
        return len(reaped)


def is_reaper_needed() -> bool:
    """Return whether orphans come to this process because it is the first of its container."""
    return os.getpid() == 1


def _zombie_children() -> list[int]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.append(child.pid)
    return found


def _reap(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False
