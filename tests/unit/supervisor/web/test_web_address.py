"""Where the page is served, and the file of its token."""

import os
import socket
from pathlib import Path

import pytest

from trainerd.errors import UserError
from trainerd.supervisor.api.web.web_address import (
    WebAddress,
    is_loopback,
    keep_token,
    listening_for_web,
    parse_web_address,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7878", WebAddress("127.0.0.1", 7878)),
        ("localhost:0", WebAddress("localhost", 0)),
        ("[::1]:7878", WebAddress("::1", 7878)),
        ("unix:/run/page.sock", WebAddress(path=Path("/run/page.sock"))),
    ],
)
def test_an_address_is_understood(text, address):
    assert parse_web_address(text) == address
    assert is_loopback(address)


NO_ADDRESSES = (
    "", "7878", ":7878", "localhost", "localhost:", "h:99999", "h:-1", "h:x", "::1:7878", "unix:", "h:\u0663",
    "h:" + "9" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("text", NO_ADDRESSES, ids=range(len(NO_ADDRESSES)))
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(UserError) as refused:
        parse_web_address(text)
    assert refused.value.hint


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_other_addresses_are_open_to_the_network(host):
    assert not is_loopback(WebAddress(host, 1))


def test_a_port_that_is_taken_is_said():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = WebAddress("127.0.0.1", other.getsockname()[1])
        with pytest.raises(UserError, match="cannot listen"), listening_for_web(address):
            pass


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_said(host):
    with pytest.raises(UserError, match="--web"), listening_for_web(WebAddress(host, 0)):
        pass


def test_the_token_is_made_once_and_closed_to_others(tmp_path):
    path = tmp_path / "web.token"
    old = os.umask(0)
    try:
        token = keep_token(path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(token) >= 32
    assert keep_token(path) == token


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_token_that_others_can_read_is_refused(tmp_path, mode):
    path = tmp_path / "web.token"
    keep_token(path)
    path.chmod(mode)
    with pytest.raises(UserError, match="is open to") as refused:
        keep_token(path)
    assert "chmod 600" in refused.value.hint


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 40])
def test_a_token_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "web.token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UserError, match=r"web\.token"):
        keep_token(path)
