"""Processes that a rank's command left in the background and that may still open a session.

``nohup python train.py &`` in a shell that exits with 0: the trainer imports torch for seconds before it
registers. Until then nothing but the process itself shows that the rank has not ended.

Invariants:
    Only a process that carries the attempt's mark counts, and only a Python interpreter, a shell or a starter
    such as nohup: a `sleep` that was left behind opens no session.
    No wait is longer than `BACKGROUND_SESSION_LIMIT_S`.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from trainerd.contract.environment import ATTEMPT_ID
from trainerd.contract.process import is_alive
from trainerd.shim.process_table import carries, maps_library, processes_since

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trainerd.contract.process import ProcessIdentity

BACKGROUND_IMPORT_LIMIT_S: Final = 8.0
"""How long processes left in the background are waited for until one has loaded torch, in seconds."""

BACKGROUND_SESSION_LIMIT_S: Final = 120.0
"""How long they are waited for once one has, until it opens its session, in seconds."""

_TORCH: Final = b"/torch/lib/"
_INTERPRETERS: Final = ("python", "pypy")
_STARTERS: Final = frozenset(
    {
        *("sh", "bash", "dash", "zsh", "ksh", "fish", "busybox"),
        *("coreutils", "env", "nohup", "setsid", "timeout", "nice"),
        *("uv", "conda", "micromamba"),
    }
)


class BackgroundProcesses:
    """What the command of one rank left in the background when it exited with 0.

    Args:
        mark: Of the attempt's processes.
        rank: The rank; None if it is the only one.
        since_ticks: When the shim began, in clock ticks since boot.
        began_s: When the command exited, on the clock of the caller.
    """

    def __init__(self, mark: str, rank: int | None, *, since_ticks: int, began_s: float) -> None:
        self._entries = [f"{ATTEMPT_ID}={mark}".encode(errors="surrogateescape")]
        self._entries += [] if rank is None else [f"RANK={rank}".encode()]
        self._since_ticks = since_ticks
        self._began_s = began_s
        self._found: set[ProcessIdentity] = set()
        self._has_loaded_torch = False

    def living(self) -> set[ProcessIdentity]:
        """Return those that live. All of /proc is read when none is known that does."""
        self._found = {each for each in self._found if _lives(each)}
        if not self._found:
            self._found = set(self._candidates())
        return self._found

    def is_waited_for(self, now_s: float) -> bool:
        """Tell whether one lives and the time in which it may open its session is not over."""
        living = self.living()
        waited_s = now_s - self._began_s
        if waited_s >= BACKGROUND_IMPORT_LIMIT_S and not self._has_loaded_torch:
            self._found = set(self._candidates())  # a shell may have started the interpreter meanwhile
            self._has_loaded_torch = any(maps_library(each.pid, _TORCH) for each in self._found)
        limit_s = BACKGROUND_SESSION_LIMIT_S if self._has_loaded_torch else BACKGROUND_IMPORT_LIMIT_S
        return bool(living) and waited_s < limit_s

    def _candidates(self) -> Iterable[ProcessIdentity]:
        for row in processes_since(self._since_ticks):
            pid = row.identity.pid
            if pid != os.getpid() and may_train(pid) and all(carries(pid, each) for each in self._entries):
                yield row.identity


def may_train(pid: int) -> bool:
    """Return whether a process is a Python interpreter or a program that starts one; unknown is no."""
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))  # noqa: PTH115, PTH119 - not a real path
    except OSError:
        return False
    return program.startswith(_INTERPRETERS) or program in _STARTERS


def _lives(identity: ProcessIdentity) -> bool:
    with contextlib.suppress(OSError):
        return is_alive(identity)
    return False
