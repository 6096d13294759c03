"""How a prepared shim takes its order, or leaves without one."""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from trainerd.shim import parking, prepared
from trainerd.shim.parking import PARK, PARKED
from trainerd.supervisor.attempt.parked import connect


class Ready:
    """Stands for a standby that is ready."""

    cgroup = None

    def __init__(self):
        self.has_ended = False
        self.channel, self._its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._its.send(b"ready")

    def memory_bytes(self):
        return 1

    def end(self):
        self.has_ended = True


@pytest.fixture
def standby(monkeypatch):
    subject = Ready()
    monkeypatch.setattr(prepared, "_prepare", lambda *_: subject)
    monkeypatch.setattr(parking, "_LOOK_S", 0.01)
    return subject


@pytest.fixture
def orders():
    """Return the other end of what is the standard input."""
    before = os.dup(0)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        os.dup2(its.fileno(), 0)
    yield ours
    os.dup2(before, 0)
    os.close(before)
    ours.close()


def give(connection, folder):
    with Path(os.devnull).open() as ready:
        socket.send_fds(connection, [folder], [ready.fileno()])


def test_it_takes_an_order(standby, orders):
    give(orders, b"/state/attempts/1")
    order, taken = prepared.await_launch(None)
    assert (order.folder, taken) == ("/state/attempts/1", standby)
    os.close(order.ready_descriptor)


def test_one_that_was_asked_to_end_takes_no_order(standby, orders):
    """The attempt would be stopped as it begins, by a signal that was not meant for it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        give(orders, b"/state/attempts/1")
        assert prepared.await_launch(None) is None
        assert standby.has_ended
    finally:
        signal.sigwait({signal.SIGTERM})
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.timeout(20)
def test_one_that_was_found_and_is_given_no_order_ends(standby, orders, monkeypatch):
    monkeypatch.setattr(prepared, "ORDER_LIMIT_S", 0.01)
    address = f"\0trainerd-test-{os.getpid()}-{os.urandom(4).hex()}".encode()
    came = []
    waiting = threading.Thread(target=lambda: came.append(prepared.await_launch(None)), daemon=True)
    waiting.start()
    assert orders.recv(100) == b"ready 1"
    orders.send(PARK + address)
    assert orders.recv(100) == PARKED
    with connect(address):
        waiting.join(10.0)
        assert came == [None]
    assert standby.has_ended
