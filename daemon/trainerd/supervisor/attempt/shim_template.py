"""The template that shims are forked from, as the supervisor sees it: see `shim.template` for what it does.

Starting a Python process takes longer than all else between the end of one attempt and the start of the next,
and more of the processor than all else that the supervisor does for it.

Invariants: a template minds nothing, so it may be ended at any moment. It is given one order at a time and
answers each. Where no answer comes, a shim may be on its way nevertheless; one who starts a second need
not care, since the door to an attempt lets one pass.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract.process import ProcessIdentity, boot_id
from trainerd.supervisor.attempt.child import ShimChild, readable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEMPLATE_OPTION: Final = "--template"

ANSWER_LIMIT_S: Final = 10.0
"""How long an answer is waited for: its first one comes when it has loaded everything, on a busy machine."""

_ANSWER_BYTES: Final = 64


@dataclass(frozen=True)
class _Waiting:
    pid: int
    pidfd: int
    orders: socket.socket


class ShimTemplate:
    """At most one that waits for orders. May be used from several threads.

    Args:
        spawn: Starts one whose standard input is the descriptor given; returns its pid.
        answer_limit_s: One that does not answer for so many seconds is ended.
    """

    def __init__(self, spawn: Callable[[int], int], *, answer_limit_s: float = ANSWER_LIMIT_S) -> None:
        self._spawn = spawn
        self._answer_limit_s = answer_limit_s
        self._lock = threading.Lock()
        self._waiting: _Waiting | None = None

    @property
    def pid(self) -> int | None:
        """Of the one that waits."""
        waiting = self._waiting
        return waiting.pid if waiting is not None else None

    def prepare(self) -> None:
        """Start one, unless one waits.

        Raises:
            OSError: It cannot be started.
        """
        with self._lock:
            if self._waiting is not None:
                return
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.settimeout(self._answer_limit_s)
            with its:
                try:
                    pid = self._spawn(its.fileno())
                except BaseException:
                    ours.close()
                    raise
            # No other code collects it, so the number is still that child's.
            self._waiting = _Waiting(pid, os.pidfd_open(pid), ours)

    async def ended(self) -> None:
        """Return when the one that waits has ended. Not while another thread may dismiss it."""
        waiting = self._waiting
        if waiting is not None:
            await readable(waiting.pidfd)
            with self._lock:
                self._end()

    def fork(self, attempt_dir: Path) -> ShimChild | None:
        """Have a shim mind an attempt; None if there is no template, or it does not answer."""
        with self._lock:
            if self._waiting is None:
                return None
            is_ready, ready = os.pipe2(os.O_CLOEXEC)
            try:
                shim = self._order(self._waiting.orders, attempt_dir, ready)
            except (OSError, ValueError):
                shim = None
                # Killed and not merely left: an order that it has yet to read is not obeyed later. What waits
                # for its end starts another.
                signal.pidfd_send_signal(self._waiting.pidfd, signal.SIGKILL)
            finally:
                os.close(ready)
            if shim is None:
                os.close(is_ready)
                return None
            return ShimChild(shim, is_ready)

    def _order(self, orders: socket.socket, attempt_dir: Path, ready: int) -> ProcessIdentity:
        socket.send_fds(orders, [os.fsencode(attempt_dir)], [ready])
        pid, start_ticks = orders.recv(_ANSWER_BYTES).split()
        return ProcessIdentity(int(pid), int(start_ticks), boot_id())

    def dismiss(self) -> None:
        """End the one that waits."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        waiting.orders.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(waiting.pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(waiting.pid, 0)
        os.close(waiting.pidfd)
