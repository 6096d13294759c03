"""The socket on which the API answers: who may bind it, who may speak, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time

import httpx
import pytest

from tests.support.fake_control import MNIST, FakeControl, served
from tests.support.unix_sockets import bind, connect
from trainerd.errors import LockedError, UserError
from trainerd.supervisor.api import stoppable_server
from trainerd.supervisor.api.app import create_app
from trainerd.supervisor.api.server import serve
from trainerd.supervisor.api.unix_socket import (
    bind_socket,
    is_answered,
    is_trusted_peer,
    listening,
    reachable_address,
)

NOBODY_UID = 65534
LONG_REQUEST_S = 0.3


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trainerd.sock"


def get(path, url="/v1/jobs/mnist") -> httpx.Response:
    with reachable_address(path) as address:
        transport = httpx.HTTPTransport(uds=address, verify=False)
        with httpx.Client(transport=transport, base_url="http://x", timeout=10) as client:
            return client.get(url)


def test_only_its_user_may_open_it_whatever_the_umask(path):
    before = os.umask(0)
    try:
        with listening(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_dead_socket_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as dead:
        bind(dead, path)
    assert not is_answered(path)
    with listening(path):
        assert is_answered(path)


def test_a_socket_that_somebody_answers_on_is_left_alone(path):
    with listening(path) as listener:
        with pytest.raises(LockedError, match="another process answers"):
            bind_socket(path)
        client = socket.socket(socket.AF_UNIX)
        connect(client, path)
        listener.accept()[0].close()
        client.close()


def test_a_file_in_its_place_is_left_alone(path):
    path.write_text("precious")
    with pytest.raises(UserError, match="not a socket"):
        bind_socket(path)
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="cannot listen on"):
        bind_socket(tmp_path / "missing" / "trainerd.sock")


def test_leftovers_of_a_crash_are_swept_and_nothing_is_left_at_the_end(path):
    path.with_name(".trainerd.sock.tmp-1").touch()
    with listening(path):
        assert list(path.parent.iterdir()) == [path]
    assert list(path.parent.iterdir()) == []


def test_the_socket_of_a_successor_is_not_removed(path):
    with listening(path):
        path.unlink()
        successor = bind_socket(path)
    assert is_answered(path)
    successor.close()


def test_a_path_longer_than_an_address_can_be_works_all_the_same(tmp_path):
    path = tmp_path / ("long" * 40) / "trainerd.sock"
    path.parent.mkdir()
    with served(FakeControl(MNIST), path):
        assert get(path).json()["name"] == "mnist"
    assert not path.exists()


class FakeConnection:
    def __init__(self, uid: int) -> None:
        self._uid = uid

    def getsockopt(self, level, option, _size):
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_PEERCRED)
        return struct.pack("3i", 1, self._uid, 1)


@pytest.mark.parametrize(("uid", "is_trusted"), [(0, True), (os.geteuid(), True), (NOBODY_UID, False)])
def test_our_user_and_root_are_trusted_and_others_are_not(uid, is_trusted):
    assert is_trusted_peer(FakeConnection(uid)) is is_trusted


ASK_AS_STRANGER = """
import os, socket, sys
address, uid = sys.argv[1], int(sys.argv[2])
os.chdir(address)
os.setuid(uid)
with socket.socket(socket.AF_UNIX) as client:
    client.connect("trainerd.sock")
    client.sendall(b"POST /v1/jobs/mnist/stop HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n")
    print(client.makefile().read())
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_is_refused_even_where_the_mode_lets_them_in(path):
    control = FakeControl(MNIST)
    with served(control, path):
        path.chmod(0o666)
        path.parent.chmod(0o755)
        answer = subprocess.run(
            [sys.executable, "-S", "-c", ASK_AS_STRANGER, str(path.parent), str(NOBODY_UID)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert "403 Forbidden" in answer.stdout, answer.stderr
        assert control.calls == []
        assert get(path).status_code == 200


def test_serving_installs_no_signal_handlers(path):
    def handlers():
        return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    async def run():
        before = handlers()
        stop, ready = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(serve(create_app(FakeControl()), path, stop=stop, ready=ready))
        await ready.wait()
        during = handlers()
        stop.set()
        await task
        assert during == before

    asyncio.run(run())


def test_an_answer_in_progress_is_finished_when_the_supervisor_stops(path):
    control = FakeControl(MNIST)
    asked, answers = threading.Event(), []

    async def slow_rescan():
        asked.set()
        await asyncio.sleep(LONG_REQUEST_S)

    control.rescan = slow_rescan

    def ask():
        with reachable_address(path) as address:
            transport = httpx.HTTPTransport(uds=address, verify=False)
            with httpx.Client(transport=transport, base_url="http://x") as client:
                answers.append(client.post("/v1/rescan").json())

    client = threading.Thread(target=ask)
    with served(control, path):
        client.start()
        assert asked.wait(10)
    client.join(10)
    assert answers == [{"ok": True}]


def test_a_connection_that_was_accepted_before_the_stop_may_still_ask(path):
    """Its client cannot know that it came too late: only those still in the queue of the socket go to the
    next."""
    request = b"GET /v1/jobs/mnist HTTP/1.1\r\nhost: x\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as late, socket.socket(socket.AF_UNIX) as idle:
        with contextlib.ExitStack() as serving:
            serving.enter_context(served(FakeControl(MNIST), path))
            for client in (late, idle):  # accepted in turn
                client.settimeout(10)
                client.connect(str(path))
            idle.sendall(request)
            assert b" 200 " in idle.recv(65536)
            end = threading.Thread(target=serving.pop_all().close)
            end.start()
        while idle.recv(65536):
            pass  # until the server has closed what it owes nothing
        late.sendall(request)
        assert b" 200 " in late.recv(65536)
        end.join(10)
        assert not end.is_alive()


def test_a_silent_client_does_not_keep_the_supervisor_from_stopping(path):
    with socket.socket(socket.AF_UNIX) as silent:
        with served(FakeControl(), path):
            connect(silent, path)
            silent.sendall(b"GET /v1/jo")
            get(path, "/v1/jobs")
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 5


def test_whoever_connects_and_stays_silent_is_hung_up_on(path, monkeypatch):
    monkeypatch.setattr(stoppable_server, "KEEP_ALIVE_S", 0.2)
    with served(FakeControl(), path), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        connect(client, path)
        assert client.recv(100) == b""


def test_headers_without_end_are_refused(path):
    with served(FakeControl(), path), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        connect(client, path)
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 40_000)
        assert b" 400 " in client.recv(100)
