"""Who is answered on a real socket, by the users and groups that the kernel names; and for how long."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time

import pytest

from tests.support.fake_control import MNIST, FakeControl, served
from tests.support.unix_sockets import connect
from trainerd.supervisor.api import limited_protocol, server, stoppable_server

STRANGER = 65534
TRAINERS = 4242
STOP = b"POST /v1/jobs/mnist/stop HTTP/1.1\r\nhost: x\r\n\r\n"
GROUPS_OF_MANY = 2000

as_other_users = pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root: becomes other users")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trainerd.sock"


def asked(path, request: bytes = STOP, *, uid: int = STRANGER, gid: int = STRANGER, groups=()) -> bytes:
    """Return what another user with these groups is answered."""
    answer, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                os.setgroups(groups)
                os.setgid(gid)
                # The way to the socket is not what is tested: any other uid that may still walk it.
                os.setresuid(uid, uid, 0)
                connect(client, path)
                client.sendall(request)
                os.write(say, client.recv(65536))
        finally:
            os._exit(0)
    os.close(say)
    with os.fdopen(answer, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@contextlib.contextmanager
def open_to_all(control, path, *, group_id=TRAINERS):
    """Serve with a mode that lets everybody connect, so that the peer check alone decides."""
    with served(control, path, group_id=group_id):
        path.chmod(0o666)
        for folder in path.parents:
            if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001 and folder != folder.parent:
                folder.chmod(folder.stat().st_mode | 0o011)
        yield control


@pytest.mark.root
@as_other_users
@pytest.mark.parametrize(
    ("gid", "groups", "status"),
    [
        (TRAINERS, (), b" 200 "),
        (STRANGER, (7, TRAINERS), b" 200 "),
        (STRANGER, (), b" 403 "),
        (STRANGER, (7, 8), b" 403 "),
        (STRANGER, (*range(5000, 5000 + GROUPS_OF_MANY), TRAINERS), b" 200 "),
        (STRANGER, tuple(range(5000, 5000 + GROUPS_OF_MANY)), b" 403 "),
    ],
    ids=["primary", "member", "stranger", "other-groups", "member-of-many", "stranger-of-many"],
)
def test_a_member_of_the_group_is_answered_and_a_stranger_is_not(path, gid, groups, status):
    with open_to_all(FakeControl(MNIST), path) as control:
        assert status in asked(path, gid=gid, groups=groups)
        assert bool(control.calls) is (status == b" 200 ")


@pytest.mark.root
@as_other_users
def test_a_check_that_raises_refuses(path, monkeypatch):
    def broken(_connection):
        raise struct.error("of whatever kind")

    monkeypatch.setattr("trainerd.supervisor.api.unix_socket._peer_groups", broken)
    with open_to_all(FakeControl(MNIST), path) as control:
        assert b" 403 " in asked(path, groups=(TRAINERS,))
        assert control.calls == []


def test_a_judgement_that_fails_leaves_a_refused_connection_with_its_limits(path, monkeypatch):
    """Whatever raises while a connection is judged, nothing of it is served, and it is closed in time."""

    def broken(*_arguments, **_named):
        raise RuntimeError("a bug")

    monkeypatch.setattr(server, "is_trusted_peer", broken)
    monkeypatch.setattr(stoppable_server, "KEEP_ALIVE_S", 0.3)
    control = FakeControl(MNIST)
    with (
        served(control, path),
        socket.socket(socket.AF_UNIX) as asks,
        socket.socket(socket.AF_UNIX) as silent,
    ):
        for client in (asks, silent):
            client.settimeout(10)
            connect(client, path)
        asks.sendall(STOP)
        assert b" 403 " in asks.recv(65536)
        assert silent.recv(1) == b""
    assert control.calls == []


def dribbled(path, parts: list[bytes], pause_s: float) -> float:
    """Send a request in parts; return after how many seconds the other end hung up."""
    with socket.socket(socket.AF_UNIX) as client:
        connect(client, path)
        client.settimeout(pause_s)
        began_s = time.monotonic()
        for part in parts:
            try:
                client.sendall(part)
                if client.recv(1000) == b"":
                    break
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                break
        return time.monotonic() - began_s


@pytest.mark.parametrize(
    "parts",
    [
        [b"GET /v1/jobs HTTP/1.1\r\nhost: x\r\nx: ", *[b"a"] * 100],
        [b"POST /v1/rescan HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n", *[b"a"] * 99],
    ],
    ids=["headers", "body"],
)
def test_a_request_that_dribbles_in_has_a_limit_in_all(path, monkeypatch, parts):
    """A byte from time to time keeps no connection."""
    monkeypatch.setattr(limited_protocol, "REQUEST_LIMIT_S", 0.5)
    with served(FakeControl(MNIST), path):
        assert dribbled(path, parts, 0.05) < 3.0


def test_requests_that_are_whole_go_on_for_longer_than_the_limit(path, monkeypatch):
    monkeypatch.setattr(limited_protocol, "REQUEST_LIMIT_S", 0.2)
    request = b"GET /v1/jobs/mnist HTTP/1.1\r\nhost: x\r\n\r\n"
    with served(FakeControl(MNIST), path), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        connect(client, path)
        for _ in range(5):
            client.sendall(request)
            answer = b""
            while not answer.endswith(b"}"):  # head and body may come apart
                answer += client.recv(65536)
            assert b" 200 " in answer
            time.sleep(0.1)


def test_a_client_that_does_not_read_its_answer_is_hung_up_on(path, monkeypatch):
    monkeypatch.setattr(limited_protocol, "READER_LIMIT_S", 0.3)
    request = b"GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
    with served(FakeControl(MNIST), path), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        connect(client, path)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            client.sendall(request * 200_000)


@pytest.mark.root
@as_other_users
def test_one_member_of_the_group_keeps_nobody_else_out(path):
    """Own connections beyond the limit are refused; another member and root are still answered."""
    with open_to_all(FakeControl(MNIST), path) as control, contextlib.ExitStack() as stack:
        ready, say_ready = os.pipe()
        end, say_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([TRAINERS])
                os.setresuid(STRANGER, STRANGER, 0)
                held = [socket.socket(socket.AF_UNIX) for _ in range(server.CONNECTIONS_HEARD_MAX + 8)]
                for client in held:
                    with contextlib.suppress(OSError):
                        connect(client, path)
                os.write(say_ready, b"!")
                os.read(end, 1)
            finally:
                os._exit(0)
        stack.callback(os.waitpid, child, 0)
        stack.callback(os.write, say_end, b"!")
        assert os.read(ready, 1) == b"!"
        assert b" 200 " not in asked(path, groups=(TRAINERS,))
        assert control.calls == []
        assert b" 200 " in asked(path, uid=STRANGER - 1, groups=(TRAINERS,))
        assert b" 200 " in asked(path, uid=0, gid=0)
    for descriptor in (ready, say_ready, end, say_end):
        os.close(descriptor)
