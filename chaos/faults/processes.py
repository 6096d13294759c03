"""Signals to ranks, shims, supervisors and loader workers, at any moment."""

from __future__ import annotations

import os
import signal
from signal import Signals
from typing import TYPE_CHECKING, Final

from chaos.faults.fault import Fault, Struck, register
from chaos.waiting import NotNowError

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.faults.fault import Context

PAUSE_S: Final = 2.0
"""For so long a process is stopped before it goes on."""


def send(pid: int, number: Signals) -> None:
    """Send a signal.

    Raises:
        NotNowError: The process is gone.
    """
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise NotNowError(f"process {pid} is gone") from None


def _to_rank(number: Signals) -> Callable[[Context], Struck]:
    def strike(context: Context) -> Struck:
        pid = context.rank_pid()
        send(pid, number)
        return Struck(f"{number.name} to rank {context.rank}, pid {pid}")

    return strike


def _to_group(number: Signals) -> Callable[[Context], Struck]:
    def strike(context: Context) -> Struck:
        group = os.getpgid(context.rank_pid())
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            raise NotNowError(f"group {group} is gone") from None
        return Struck(f"{number.name} to the process group of rank {context.rank}")

    return strike


def _to_worker(number: Signals) -> Callable[[Context], Struck]:
    def strike(context: Context) -> Struck:
        pid = context.random.choice(context.worker_pids())
        send(pid, number)
        return Struck(f"{number.name} to a loader worker, pid {pid}")

    return strike


def _to_shim(number: Signals) -> Callable[[Context], Struck]:
    def strike(context: Context) -> Struck:
        pid = context.attempt().shim.pid
        send(pid, number)
        return Struck(f"{number.name} to the shim, pid {pid}")

    return strike


def _to_supervisor(number: Signals) -> Callable[[Context], Struck]:
    def strike(context: Context) -> Struck:
        pid = context.harness.supervisor_pid()
        send(pid, number)
        return Struck(f"{number.name} to the supervisor, pid {pid}")

    return strike


def _pause_rank(context: Context) -> Struck:
    return _pause(context, context.rank_pid(), f"rank {context.rank}")


def _pause_shim(context: Context) -> Struck:
    return _pause(context, context.attempt().shim.pid, "the shim")


def _pause_supervisor(context: Context) -> Struck:
    return _pause(context, context.harness.supervisor_pid(), "the supervisor")


def _pause(context: Context, pid: int, who: str) -> Struck:
    send(pid, signal.SIGSTOP)
    context.harness.later(PAUSE_S, lambda: _continue(pid))
    return Struck(f"SIGSTOP to {who}, pid {pid}, SIGCONT after {PAUSE_S:g} s")


def _continue(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


_KILLED, _CRASHED, _DRAINED = ("killed",), ("crashed",), ("drained",)

register(Fault("rank-sigkill", "SIGKILL to a rank", _to_rank(signal.SIGKILL), _KILLED, soak_weight=6))
register(Fault("rank-sigterm", "SIGTERM to a rank", _to_rank(signal.SIGTERM), _DRAINED, soak_weight=3))
register(Fault("rank-sigint", "SIGINT to a rank", _to_rank(signal.SIGINT), _DRAINED, soak_weight=1))
register(Fault("rank-sigusr1", "SIGUSR1 to a rank", _to_rank(signal.SIGUSR1), _DRAINED, soak_weight=1))
register(Fault("rank-sigsegv", "SIGSEGV to a rank", _to_rank(signal.SIGSEGV), _CRASHED, soak_weight=1))
register(Fault("rank-sigabrt", "SIGABRT to a rank", _to_rank(signal.SIGABRT), _CRASHED, soak_weight=1))
register(Fault("rank-paused", "SIGSTOP to a rank, SIGCONT two seconds later", _pause_rank, soak_weight=1))
register(
    Fault(
        "group-sigterm",
        "SIGTERM to a rank and its workers",
        _to_group(signal.SIGTERM),
        _DRAINED,
        soak_weight=2,
    )
)
register(
    Fault(
        "group-sigint", "SIGINT to a rank and its workers", _to_group(signal.SIGINT), _DRAINED, soak_weight=1
    )
)
register(
    Fault(
        "group-sigkill",
        "SIGKILL to a rank and its workers",
        _to_group(signal.SIGKILL),
        _KILLED,
        soak_weight=1,
    )
)
register(
    Fault("worker-sigkill", "SIGKILL to a loader worker", _to_worker(signal.SIGKILL), _CRASHED, soak_weight=1)
)
register(Fault("worker-sigterm", "SIGTERM to a loader worker", _to_worker(signal.SIGTERM), soak_weight=1))
register(Fault("shim-sigkill", "SIGKILL to a shim", _to_shim(signal.SIGKILL), ("lost",), soak_weight=2))
register(Fault("shim-sigterm", "SIGTERM to a shim", _to_shim(signal.SIGTERM), _DRAINED, soak_weight=1))
register(Fault("shim-paused", "SIGSTOP to a shim, SIGCONT two seconds later", _pause_shim, soak_weight=1))
register(
    Fault("supervisor-sigkill", "SIGKILL to the supervisor", _to_supervisor(signal.SIGKILL), soak_weight=2)
)
register(
    Fault("supervisor-sigsegv", "SIGSEGV to the supervisor", _to_supervisor(signal.SIGSEGV), soak_weight=0.5)
)
register(
    Fault(
        "supervisor-sigterm",
        "SIGTERM to the supervisor: it drains every job; the next one resumes them",
        _to_supervisor(signal.SIGTERM),
        _DRAINED,
        soak_weight=1,
        hits_all_jobs=True,
    )
)
register(
    Fault(
        "supervisor-paused",
        "SIGSTOP to the supervisor, SIGCONT two seconds later",
        _pause_supervisor,
        soak_weight=0.5,
    )
)
