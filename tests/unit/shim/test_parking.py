"""How a prepared shim waits for the next command of its user."""

import os
import signal
import socket
import threading

import pytest

from trainerd.contract.environment import STANDBY
from trainerd.contract.records import LaunchRecord
from trainerd.shim import kernel, parking
from trainerd.shim.parking import PARKED, is_of_this_user, wait_parked
from trainerd.supervisor.attempt import parked
from trainerd.supervisor.attempt.parked import address_of, connect


@pytest.fixture
def address():
    return f"\0trainerd-test-{os.getpid()}-{os.urandom(4).hex()}".encode()


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr(parking, "_LOOK_S", 0.01)


class Waiting:
    """One that waits in a thread, and what came of it."""

    def __init__(self, address, has_ended=lambda: False):
        self.asked, orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.came = []
        self._thread = threading.Thread(
            target=lambda: self.came.append(wait_parked(address, orders, has_ended)), daemon=True
        )
        self._thread.start()
        self.answer = self.asked.recv(100)

    def end(self):
        self._thread.join(10.0)
        assert not self._thread.is_alive()
        return self.came[0]


def test_one_that_waits_says_so_and_is_found_by_a_process_of_its_user(address):
    waiting = Waiting(address)
    assert waiting.answer == PARKED
    assert waiting.asked.recv(1) == b"", "it listens to the one that left no more"
    with connect(address) as ours:
        with waiting.end() as its:
            its.send(b"order")
        assert ours.recv(100) == b"order"
    assert connect(address) is None, "there was one"


def test_there_is_none_where_none_waits(address):
    assert connect(address) is None


def test_of_two_at_one_address_the_first_waits(address):
    first, second = Waiting(address), Waiting(address)
    assert (first.answer, second.answer) == (PARKED, b"")
    assert second.end() is None
    connect(address).close()
    first.end().close()


def test_a_process_of_another_user_is_not_answered_and_answers_none(address, monkeypatch):
    waiting = Waiting(address, has_ended=iter([False] * 20 + [True]).__next__)
    monkeypatch.setattr(parking, "is_of_this_user", lambda _: False)
    monkeypatch.setattr(parked, "is_of_this_user", lambda _: False)
    assert connect(address) is None
    assert waiting.end() is None


def test_the_user_of_the_other_end_is_what_the_kernel_says():
    ours, its = socket.socketpair()
    with ours, its:
        assert is_of_this_user(ours)


def test_it_ends_with_its_standby_and_after_its_limit(address, monkeypatch):
    assert Waiting(address, has_ended=lambda: True).end() is None
    monkeypatch.setattr(parking, "PARKED_LIMIT_S", 0.0)
    assert Waiting(address).end() is None
    assert connect(address) is None


def test_it_ends_when_it_is_asked_to_by_a_signal(address, monkeypatch):
    monkeypatch.setattr(signal, "sigpending", lambda: {signal.SIGCHLD})
    waiting = Waiting(address)
    monkeypatch.setattr(signal, "sigpending", lambda: {signal.SIGTERM})
    assert waiting.end() is None


def test_a_signal_that_a_shim_would_pass_on_asks_it_to_end_while_it_waits(monkeypatch):
    for signum in kernel.STOP_SIGNALS | {signal.SIGQUIT, signal.SIGHUP}:
        monkeypatch.setattr(signal, "sigpending", lambda pending=signum: {pending})
        assert parking.is_asked_to_end()
    monkeypatch.setattr(signal, "sigpending", lambda: {signal.SIGCHLD, signal.SIGWINCH})
    assert not parking.is_asked_to_end()


def launch(**changes):
    fields = {
        "job": "ant", "attempt": 2, "command": ("python", "train.py"), "workdir": "/w",
        "env": {"PATH": "/bin", STANDBY: "1"}, "nproc": 1, "is_group": False, "grace_s": 30.0,
        "log_paths": ("log",),
    }  # fmt: skip
    return LaunchRecord(**fields | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"command": ("python", "-O", "train.py")},
        {"workdir": "/elsewhere"},
        {"env": {"PATH": "/bin", STANDBY: "1", "OMP_NUM_THREADS": "1"}},
        {"env_file": "/secrets"},
    ],
    ids=["interpreter", "working folder", "environment", "env_file"],
)
def test_a_start_that_would_inherit_something_else_asks_elsewhere(changes):
    assert address_of(launch(**changes), ("umask",)) != address_of(launch(), ("umask",))


def test_the_next_attempt_or_job_with_the_same_asks_there():
    other = launch(job="bee", attempt=1, command=("python", "other.py", "--lr=1"))
    assert address_of(other, ("umask",)) == address_of(launch(), ("umask",))
    assert address_of(launch(), ("another umask",)) != address_of(launch(), ("umask",))
