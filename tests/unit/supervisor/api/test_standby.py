"""Who answers while the program is replaced: what it knows at once, all else by way of the new program."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pytest

from tests.support.fake_control import MNIST, FakeControl, served
from trainerd.supervisor.api import snapshot
from trainerd.supervisor.api.unix_socket import bind_socket
from trainerd.supervisor.service import standby

LIMIT_S = 20.0


def asked(address, line: str) -> str:
    said = b""
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(ConnectionError):
        client.settimeout(LIMIT_S)
        client.connect(str(address))
        client.sendall(f"{line} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        while part := client.recv(65536):
            said += part
    return said.decode()


@pytest.fixture
def alive(tmp_path):
    """One that stands in at `old`, for a program that will answer at `new`; yields what ends it."""
    listener = bind_socket(tmp_path / "old")
    alive = standby.leave_stand_in(
        listener.fileno(),
        tmp_path / "new",
        answer=snapshot(FakeControl(MNIST)),
        group_id=None,
        not_to_hold=(),
    )
    listener.close()
    closing = contextlib.ExitStack()
    closing.callback(os.close, alive)
    with closing:
        yield closing.close


@pytest.mark.parametrize("path", ["/v1/daemon", "/v1/jobs", "/v1/jobs/mnist"])
def test_how_things_are_is_answered_as_the_api_answers_it(tmp_path, alive, path):
    by_stand_in = asked(tmp_path / "old", f"GET {path}")
    with served(FakeControl(MNIST), tmp_path / "new"):
        by_api = asked(tmp_path / "new", f"GET {path} HTTP/1.1\r\nconnection: close\r\nx:")
    assert by_stand_in.startswith("HTTP/1.1 200 OK\r\n")
    assert by_stand_in.partition("\r\n\r\n")[2] == by_api.partition("\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("line", "status"),
    [("POST /v1/rescan", "200 OK"), ("GET /v1/events", "200 OK"), ("GET /v1/jobs/nobody", "404 Not Found")],
)
def test_what_it_cannot_answer_waits_for_the_new_program(tmp_path, alive, line, status):
    answers = []
    client = threading.Thread(target=lambda: answers.append(asked(tmp_path / "old", line)))
    client.start()
    assert asked(tmp_path / "old", "GET /v1/daemon")  # it goes on answering meanwhile
    with served(FakeControl(MNIST), tmp_path / "new"):
        assert answers == []
        alive()
        client.join(LIMIT_S)
    assert answers[0].partition("\r\n")[0] == f"HTTP/1.1 {status}"


def test_a_stranger_is_not_answered_and_not_handed_on(tmp_path, monkeypatch):
    """The new program would take the copy's word for its own user's."""
    monkeypatch.setattr(standby, "is_trusted_peer", lambda _connection, *, group_id: False)
    listener = bind_socket(tmp_path / "old")
    alive = standby.leave_stand_in(
        listener.fileno(), tmp_path / "new", answer=lambda _: b"{}", group_id=None, not_to_hold=()
    )
    listener.close()
    try:
        assert asked(tmp_path / "old", "GET /v1/daemon") == ""
        assert asked(tmp_path / "old", "POST /v1/rescan") == ""
    finally:
        os.close(alive)
