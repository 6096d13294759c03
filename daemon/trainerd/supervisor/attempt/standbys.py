"""The shims that were started in advance, as the supervisor sees them: see `shim.prepared` for what they do.

Invariants: one is given at most one order: for the launch record that it was prepared with, or, as the
spare, for one that it may become; by a supervisor with the same limits, affinity and umask. Where no answer
comes it is killed, and the attempt is launched in the ordinary way: the door to an attempt lets one shim
pass. Nothing here waits but `take`.
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
from trainerd.shim.parking import PARK, PARKED
from trainerd.shim.standby_fit import may_become, may_use_any
from trainerd.shim.standby_recipe import RECIPE_FORMAT, StandbyRecipe
from trainerd.supervisor.attempt.child import ShimChild
from trainerd.supervisor.attempt.parked import address_of, connect
from trainerd.supervisor.machine.standby_policy import StandbyState

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.contract.records import LaunchRecord

ANSWER_LIMIT_S: Final = 2.0
"""How long a prepared shim may take to answer its order, before the attempt is launched cold."""

LEAVE_LIMIT_S: Final = 5.0
"""How long one that was dismissed may take to end its standby and leave, before it is killed."""

_ANSWER_BYTES: Final = 4096
_INHERITED: Final = ("Umask:", "Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:", "THP_enabled:")


@dataclass
class _Prepared:
    pid: int
    orders: socket.socket
    recipe: StandbyRecipe
    traits: tuple[object, ...]
    state: StandbyState


class Standbys:
    """At most one standby a job, and one spare, for any job. May be used from several threads.

    Args:
        spawn: Starts a prepared shim with a descriptor of its orders and one of its recipe; returns its pid.
        meets_parked: Whether those count that another process of this user has left waiting.
    """

    def __init__(self, spawn: Callable[[int, int], int], *, meets_parked: bool = False) -> None:
        self._spawn = spawn
        self._meets_parked = meets_parked
        self._lock = threading.Lock()
        self._prepared: dict[str, _Prepared] = {}
        self._spare: tuple[_Prepared, float] | None = None  # since when, by the clock that does not jump
        self._failed: dict[str, StandbyState] = {}
        self._leaving: dict[int, float] = {}  # until when, by the clock that does not jump

    @property
    def pids(self) -> frozenset[int]:
        """Prepared shims that have not been collected."""
        spare = self._spare
        own = {each.pid for each in list(self._prepared.values())} | set(self._leaving)
        return frozenset(own | ({spare[0].pid} if spare is not None else set()))

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
            self._leave(self._prepared.pop(name))
            return

    def take(self, attempt_dir: Path, record: LaunchRecord) -> ShimChild | None:
        """Have a standby become an attempt, that of its job or the spare; None if none fits and answers."""
        with self._lock:
            self._failed.pop(record.job, None)
            if record.job in self._prepared:
                self._hear(record.job, self._prepared[record.job])
                self._failed.pop(record.job, None)
            prepared = self._prepared.pop(record.job, None)
            if prepared is not None and not _is_for(prepared, attempt_dir, record):
                self._make_spare(prepared)
                prepared = None
            if (
                prepared is None
                and self._spare is not None
                and may_become(self._spare[0].recipe.launch, record)
            ):
                prepared, self._spare = self._spare[0], None
            if prepared is None:
                return self._take_parked(attempt_dir, record) if self._meets_parked else None
            if prepared.traits != traits():
                self._leave(prepared)
                return None
            child = _hand_over(prepared.orders, attempt_dir)
            if child is not None:
                prepared.orders.close()
                return child
            _kill(prepared.pid)
            self._leave(prepared)
            return None

    def _take_parked(self, attempt_dir: Path, record: LaunchRecord) -> ShimChild | None:
        if not may_use_any(record):
            return None
        try:
            orders = connect(address_of(record, traits()))
        except OSError:
            return None
        if orders is None:
            return None
        with orders:
            return _hand_over(orders, attempt_dir)

    def park(self, name: str) -> bool:
        """Have the standby of a job, or the spare, wait for the next process like this one.

        It belongs to this process no more. Return whether there is one that waits.
        """
        with self._lock:
            prepared = self._prepared.get(name)
            if prepared is not None:
                self._hear(name, prepared)
            prepared = self._prepared.get(name) or (self._spare[0] if self._spare is not None else None)
            if prepared is None or prepared.state.phase != "ready" or not may_use_any(prepared.recipe.launch):
                return False
            prepared.orders.settimeout(ANSWER_LIMIT_S)
            try:
                prepared.orders.send(PARK + address_of(prepared.recipe.launch, prepared.traits))
                is_parked = prepared.orders.recv(_ANSWER_BYTES) == PARKED
            except OSError:
                is_parked = False
            prepared.orders.setblocking(False)
            if not is_parked:  # an answer that comes too late must leave nothing behind
                _kill(prepared.pid)
            else:
                prepared.orders.close()
                if self._prepared.pop(name, None) is None:
                    self._spare = None
            return is_parked

    def release(self, name: str) -> None:
        """Make the standby of a job the spare, in the place of the one before; end one that is not ready."""
        with self._lock:
            if name in self._prepared:
                self._hear(name, self._prepared[name])
            prepared = self._prepared.pop(name, None)
            if prepared is not None:
                self._make_spare(prepared)

    def _make_spare(self, prepared: _Prepared) -> None:
        if prepared.state.phase != "ready" or prepared.recipe.launch.memory_bytes is not None:
            self._leave(prepared)
            return
        if self._spare is not None:
            self._leave(self._spare[0])
        self._spare = prepared, time.monotonic()

    def dismiss(self, name: str) -> None:
        """End the standby of a job, and forget one that failed."""
        with self._lock:
            self._failed.pop(name, None)
            prepared = self._prepared.pop(name, None)
            if prepared is not None:
                self._leave(prepared)

    def dismiss_all(self) -> None:
        """End all of them."""
        for name in list(self._prepared):
            self.dismiss(name)
        self.dismiss_spare()

    def dismiss_spare(self, *, after_s: float = 0.0) -> None:
        """End the spare, if it has waited for so long."""
        with self._lock:
            if self._spare is not None and time.monotonic() - self._spare[1] >= after_s:
                self._leave(self._spare[0])
                self._spare = None

    def _leave(self, prepared: _Prepared) -> None:
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
                    _kill(pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _hand_over(orders: socket.socket, attempt_dir: Path) -> ShimChild | None:
    """Give a prepared shim its order; return it, None if it does not answer."""
    is_ready, ready = os.pipe2(os.O_CLOEXEC)
    try:
        orders.settimeout(ANSWER_LIMIT_S)
        socket.send_fds(orders, [os.fsencode(attempt_dir)], [ready])
        pid, start_ticks = orders.recv(_ANSWER_BYTES).split()
        shim = ProcessIdentity(int(pid), int(start_ticks), boot_id())
    except (OSError, ValueError):
        os.close(is_ready)
        return None
    finally:
        os.close(ready)
    return ShimChild(shim, is_ready)


def _is_for(prepared: _Prepared, attempt_dir: Path, record: LaunchRecord) -> bool:
    return (
        prepared.state.phase == "ready"
        and prepared.recipe.attempt_dir == str(attempt_dir)
        and prepared.recipe.launch == record
    )


def traits() -> tuple[object, ...]:
    """Return what the processes that this one starts inherit, beside what their launch record says."""
    status = Path("/proc/self/status").read_text("utf-8", errors="replace")
    inherited = [line for line in status.splitlines() if line.startswith(_INHERITED)]
    return (
        Path("/proc/self/limits").read_bytes(),
        frozenset(os.sched_getaffinity(0)),
        os.getpriority(os.PRIO_PROCESS, 0),
        os.sched_getscheduler(0),
        _line_of("oom_score_adj"),
        _line_of("personality"),
        _line_of("numa_maps").split()[1:2],  # the policy of memory, as `numactl` sets it
        tuple(inherited),
    )


def _line_of(name: str) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/self/{name}", "rb") as file:  # noqa: PTH123
        return file.readline()
    return b""
