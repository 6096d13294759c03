"""A shim that minds nothing: it has loaded all that a shim needs, and forks one for each order.

Orders come on its standard input, a socket that keeps messages apart: an attempt's folder, and with it a
descriptor that the new shim closes when its ranks are on record. The new shim answers with who it is.

Invariants: it has one thread, and has touched nothing. It ends when the other end of the socket is closed,
with the supervisor or by it; the shims that it forked have sessions of their own and go on. It ignores
SIGCHLD, so the kernel reaps those shims; each shim reports its own process id, so that no unrelated process
with a reused id is taken for it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract import codec
from trainerd.contract.process import identify
from trainerd.contract.records import ExitRecord, LaunchRecord, ShimRecord, VoidRecord
from trainerd.shim.kernel import hold_signals

if TYPE_CHECKING:
    import socket

_ORDER_BYTES: Final = 16 * 1024
_NOT_FORKED: Final = b"none"


@dataclass(frozen=True)
class Order:
    """What a new shim is to do.

    Attributes:
        folder: Of the attempt.
        ready_descriptor: To be closed once the ranks are on record.
    """

    folder: str
    ready_descriptor: int


def await_order() -> Order | None:
    """Return in a child of this process, for each order.

    It returns None in this process when there are no more orders.
    """
    import socket  # a shim without a template has no use for it

    _warm_up()
    os.chdir("/")  # a process that waits keeps no filesystem busy
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()  # what is never looked at stays shared with those that are forked
    # The number 0 is put to another use in the children.
    orders = socket.socket(fileno=os.dup(0))
    while True:
        folder, descriptors, _, _ = socket.recv_fds(orders, _ORDER_BYTES, 1)
        if not folder or not descriptors:
            return None
        os.set_inheritable(descriptors[0], False)  # no rank is to hold it open
        if _is_child(orders):
            return _begin(orders, Order(os.fsdecode(folder), descriptors[0]))
        os.close(descriptors[0])


def _warm_up() -> None:
    """Do once what else every shim would do: a third of its processor time."""
    import resource  # noqa: F401 - wait4 loads it

    identify(os.getpid())
    codec.prepare(LaunchRecord, ShimRecord, VoidRecord, ExitRecord)


def _is_child(orders: socket.socket) -> bool:
    try:
        return os.fork() == 0
    except OSError:
        orders.send(_NOT_FORKED)
        return False


def _begin(orders: socket.socket, order: Order) -> Order:
    hold_signals()
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # If the supervisor is gone by now, its successor finds this shim, or has declared the attempt void.
    with orders, contextlib.suppress(OSError):
        own = identify(os.getpid())
        if own is not None:
            orders.send(f"{own.pid} {own.start_ticks}".encode())
    return order
