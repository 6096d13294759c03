"""The shims that were started in advance, as the supervisor sees them: see `shim.prepared` for what they do.

Invariants: one is given at most one order, and only for exactly the launch record that it was prepared with,
by a supervisor with the same limits, affinity and umask. Where no answer comes it is killed, and the attempt
is launched in the ordinary way: the door to an attempt lets one shim pass. Nothing here waits but `take`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract import codec
from trainerd.contract.process import ProcessIdentity, boot_id
from trainerd.shim.standby_recipe import RECIPE_FORMAT, StandbyRecipe
from trainerd.supervisor.attempt.child import ShimChild
from trainerd.supervisor.machine.standby_policy import StandbyState

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.contract.records import LaunchRecord

ANSWER_LIMIT_S: Final = 2.0
"""How long a prepared shim may take to answer its order, before the attempt is launched cold."""

LEAVE_LIMIT_S: Final = 5.0
"""How long one that was dismissed may take to end its standby and leave, before it is killed."""

_ANSWER_BYTES: Final = 4096


@dataclass
class _Prepared:
    pid: int
    orders: socket.socket
    recipe: StandbyRecipe
    traits: tuple[object, ...]
    state: StandbyState


class Standbys:
    """At most one standby a job. May be used from several threads.

    Args:
        spawn: Starts a prepared shim with a descriptor of its orders and one of its recipe; returns its pid.
    """

    def __init__(self, spawn: Callable[[int, int], int]) -> None:
        self._spawn = spawn
        self._lock = threading.Lock()
        self._prepared: dict[str, _Prepared] = {}
        self._failed: dict[str, StandbyState] = {}
        self._leaving: dict[int, float] = {}  # until when, by the clock that does not jump

    @property
    def pids(self) -> frozenset[int]:
        """Prepared shims that have not been collected."""
        return frozenset({each.pid for each in list(self._prepared.values())} | set(self._leaving))

    @property
    def names(self) -> frozenset[str]:
        """Jobs that have a standby, or whose last one failed."""
        return frozenset({*self._prepared, *self._failed})

    def prepare(self, recipe: StandbyRecipe, state: StandbyState) -> None:
        """Start to prepare a standby, unless the job has one."""
        name = recipe.launch.job
        with self._lock:
            if name in self._prepared:
                return
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            content = os.memfd_create("standby-recipe", os.MFD_CLOEXEC)
            try:
                with its, os.fdopen(os.dup(content), "wb") as file:
                    file.write(codec.to_json(recipe, RECIPE_FORMAT))
                    file.flush()
                    os.lseek(content, 0, os.SEEK_SET)
                    pid = self._spawn(its.fileno(), content)
            except OSError as error:
                ours.close()
                self._failed[name] = replace(state, phase="failed", detail=str(error))
                return
            finally:
                os.close(content)
            ours.setblocking(False)
            self._prepared[name] = _Prepared(pid, ours, recipe, traits(), state)

    def state(self, name: str) -> StandbyState | None:
        """Return how the standby of a job is, None if it has none and none has failed."""
        with self._lock:
            prepared = self._prepared.get(name)
            if prepared is not None:
                self._hear(name, prepared)
            found = self._prepared.get(name)
            return found.state if found is not None else self._failed.get(name)

    def _hear(self, name: str, prepared: _Prepared) -> None:
        while True:
            try:
                answer = prepared.orders.recv(_ANSWER_BYTES)
            except BlockingIOError:
                return
            except OSError:
                answer = b""
            word, _, detail = answer.decode(errors="replace").partition(" ")
            if word == "ready":
                size = f"{int(detail) / 1e6:.0f} MB" if detail.isdigit() else ""
                prepared.state = replace(prepared.state, phase="ready", detail=size)
                continue
            self._failed[name] = replace(
                prepared.state, phase="failed", detail=detail or "its process has ended"
            )
            self._leave(name)
            return

    def take(self, attempt_dir: Path, record: LaunchRecord) -> ShimChild | None:
        """Have the standby of a job become an attempt; None if there is none that fits and answers."""
        with self._lock:
            self._failed.pop(record.job, None)
            prepared = self._prepared.get(record.job)
            if prepared is None:
                return None
            self._hear(record.job, prepared)
            self._failed.pop(record.job, None)
            fits = (
                prepared.state.phase == "ready"
                and prepared.recipe.attempt_dir == str(attempt_dir)
                and prepared.recipe.launch == record
                and prepared.traits == traits()
            )
            if not fits:
                self._leave(record.job)
                return None
            is_ready, ready = os.pipe2(os.O_CLOEXEC)
            try:
                shim = self._order(prepared, attempt_dir, ready)
            except (OSError, ValueError):
                shim = None
            finally:
                os.close(ready)
            if shim is None:
                os.close(is_ready)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(prepared.pid, signal.SIGKILL)
                self._leave(record.job)
                return None
            del self._prepared[record.job]
            prepared.orders.close()
            return ShimChild(shim, is_ready)

    def _order(self, prepared: _Prepared, attempt_dir: Path, ready: int) -> ProcessIdentity:
        prepared.orders.settimeout(ANSWER_LIMIT_S)
        socket.send_fds(prepared.orders, [os.fsencode(attempt_dir)], [ready])
        pid, start_ticks = prepared.orders.recv(_ANSWER_BYTES).split()
        return ProcessIdentity(int(pid), int(start_ticks), boot_id())

    def dismiss(self, name: str) -> None:
        """End the standby of a job, and forget one that failed."""
        with self._lock:
            self._failed.pop(name, None)
            self._leave(name)

    def dismiss_all(self) -> None:
        """End all of them."""
        for name in list(self._prepared):
            self.dismiss(name)

    def _leave(self, name: str) -> None:
        prepared = self._prepared.pop(name, None)
        if prepared is not None:
            prepared.orders.close()  # which ends it
            self._leaving[prepared.pid] = time.monotonic() + LEAVE_LIMIT_S

    def collect(self) -> None:
        """Collect those that have left, and kill those that do not leave in time."""
        with self._lock:
            for pid, until_s in list(self._leaving.items()):
                try:
                    has_ended = os.waitpid(pid, os.WNOHANG)[0] == pid
                except ChildProcessError:
                    has_ended = True
                if has_ended:
                    del self._leaving[pid]
                elif time.monotonic() > until_s:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def traits() -> tuple[object, ...]:
    """Return what the processes that this one starts inherit, beside what their launch record says."""
    status = Path("/proc/self/status").read_text("utf-8", errors="replace")
    umask = [line for line in status.splitlines() if line.startswith("Umask:")]
    return (
        Path("/proc/self/limits").read_bytes(),
        frozenset(os.sched_getaffinity(0)),
        os.getpriority(os.PRIO_PROCESS, 0),
        tuple(umask),
    )
