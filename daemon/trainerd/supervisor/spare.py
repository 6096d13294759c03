"""A shim that was started before it was needed: it has loaded everything, and waits to be told its attempt.

Starting a Python process takes longer than all else between the end of one attempt and the start of the next.

Invariants: a spare has touched nothing, so it may be ended at any moment. It is told once, by one line on its
standard input, and leaves when that ends before. An attempt whose spare dies on the way is one whose shim started
nothing, which is known how to deal with.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract.process import identify
from trainerd.supervisor.child import ShimChild

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trainerd.contract.process import ProcessIdentity

SPARE_OPTION: Final = "--spare"


@dataclass(frozen=True)
class _Waiting:
    identity: ProcessIdentity
    is_ready: int
    order: int


class SpareShim:
    """At most one that waits. May be used from several threads.

    Args:
        spawn: Starts a shim that reads its standard input from the descriptor given; returns its pid, and the
            reading end of the pipe that it closes when its ranks are on record.
    """

    def __init__(self, spawn: Callable[[int], tuple[int, int]]) -> None:
        self._spawn = spawn
        self._lock = threading.Lock()
        self._waiting: _Waiting | None = None

    @property
    def pid(self) -> int | None:
        """Of the one that waits."""
        waiting = self._waiting
        return waiting.identity.pid if waiting is not None else None

    def prepare(self) -> None:
        """Start one, unless one waits.

        Raises:
            OSError: It cannot be started.
        """
        with self._lock:
            if self._waiting is not None and not _has_ended(self._waiting.identity.pid):
                return
            self._forget()
            heard, order = os.pipe2(os.O_CLOEXEC)
            try:
                pid, is_ready = self._spawn(heard)
            except BaseException:
                os.close(order)
                raise
            finally:
                os.close(heard)
            identity = identify(pid)
            assert identity is not None, "a child that was not collected is there"
            self._waiting = _Waiting(identity, is_ready, order)

    def take(self, attempt_dir: Path) -> ShimChild | None:
        """Have the one that waits mind an attempt; None if there is none, and then nothing has happened."""
        with self._lock:
            waiting = self._waiting
            if waiting is None or _has_ended(waiting.identity.pid):
                self._forget()
                return None
            try:
                os.write(waiting.order, os.fsencode(attempt_dir) + b"\n")
            except BrokenPipeError:
                self._end()
                return None
            os.close(waiting.order)
            self._waiting = None
            return ShimChild(waiting.identity, waiting.is_ready)

    def dismiss(self) -> None:
        """End the one that waits."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._waiting is not None and not _has_ended(pid := self._waiting.identity.pid):
            os.kill(pid, signal.SIGKILL)  # not collected, so the number is still that child's
            os.waitpid(pid, 0)
        self._forget()

    def _forget(self) -> None:
        if self._waiting is not None:
            os.close(self._waiting.order)
            os.close(self._waiting.is_ready)
            self._waiting = None


def _has_ended(pid: int) -> bool:
    """Return whether a child has ended, and collect it if so."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True
