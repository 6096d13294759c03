"""What is printed about the page when it is served."""

from pathlib import Path

import pytest

from trainerd.contract.paths import StatePaths
from trainerd.supervisor.api.web.web_address import WebAddress, listening_for_web
from trainerd.supervisor.api.web.web_server import WebSettings, announce_web
from trainerd.supervisor.log import journal_stream


@pytest.fixture
def listener():
    with listening_for_web(WebAddress("127.0.0.1", 0)) as found:
        yield found


def test_the_address_is_printed_with_the_token_that_opens_it(tmp_path, listener, capsys):
    access = announce_web(WebSettings(WebAddress("127.0.0.1", 0)), StatePaths(tmp_path), listener)
    said = capsys.readouterr().err
    assert said == f"the page: http://127.0.0.1:{listener.getsockname()[1]}/?token={access.token}\n"
    assert access.token == (tmp_path / "web.token").read_text().strip()


def test_the_journal_of_systemd_does_not_get_the_token(tmp_path, listener, capsys, monkeypatch):
    monkeypatch.setattr(journal_stream, "is_journal_stream", lambda _descriptor: True)
    access = announce_web(WebSettings(WebAddress("127.0.0.1", 0)), StatePaths(tmp_path), listener)
    said = capsys.readouterr().err
    assert access.token not in said
    assert str(tmp_path / "web.token") in said


def test_an_address_that_others_can_reach_is_warned_of(tmp_path, listener, capsys):
    announce_web(WebSettings(WebAddress("0.0.0.0", 0)), StatePaths(tmp_path), listener)
    assert "open to the network of 0.0.0.0, without TLS" in capsys.readouterr().err


def test_of_a_socket_it_is_said_who_may_use_it(tmp_path, capsys):
    access = announce_web(WebSettings(WebAddress(path=Path("/run/page.sock"))), StatePaths(tmp_path), None)
    assert access.token is None
    assert "unix:/run/page.sock" in capsys.readouterr().err
    assert not (tmp_path / "web.token").exists()
