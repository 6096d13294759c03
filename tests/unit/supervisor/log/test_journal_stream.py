"""Lines to journald: their priority, and that they arrive again after it was restarted."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest
import structlog

from tests.support.unix_sockets import short_folder
from trainerd.supervisor.log import sinks
from trainerd.supervisor.log.journal_stream import VARIABLE, is_journal_stream, reconnect
from trainerd.supervisor.log.logger import configure_logging
from trainerd.supervisor.log.outside import PrintedLines, emit
from trainerd.supervisor.log.sinks import Stream


class Journald:
    """Something that listens as journald does."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(address)
        self._listener.listen()
        self._reader = None

    def connect(self) -> socket.socket:
        """Return the writing end of a new stream, as systemd hands it to a service."""
        way = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        way.connect(self.address)
        self.accept()
        return way

    def accept(self) -> None:
        self._reader, _ = self._listener.accept()
        self._reader.settimeout(5)

    def restart(self) -> None:
        self._reader.close()
        self._listener.close()
        Path(self.address).unlink()
        self.__init__(self.address)

    def read(self) -> bytes:
        return self._reader.recv(1 << 20)

    def close(self) -> None:
        self._listener.close()
        if self._reader is not None:
            self._reader.close()


@pytest.fixture
def journald():
    with short_folder() as folder:
        journald = Journald(str(folder / "stdout"))
        yield journald
        journald.close()


def named(descriptor: int) -> str:
    status = os.fstat(descriptor)
    return f"{status.st_dev}:{status.st_ino}"


def test_each_line_has_the_priority_of_its_level(journald, monkeypatch):
    with journald.connect() as way:
        monkeypatch.setenv(VARIABLE, named(way.fileno()))
        with configure_logging(None, stream=way.fileno(), level=10):
            log = structlog.get_logger()
            log.debug("job.ignored")
            log.info("supervisor.ready")
            log.warning("attempt.failed", reason="a\n\nb")
            log.error("journal.full")
        lines = journald.read().decode().splitlines()
    assert [line[:3] for line in lines] == ["<7>", "<5>", "<4>", "<3>"]
    assert json.loads(lines[2][3:])["reason"] == "a; b"


def test_another_stream_than_the_journal_gets_json_alone(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "1:2")
    target = tmp_path / "out"
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT, 0o600)
    with configure_logging(None, stream=descriptor):
        structlog.get_logger().warning("attempt.failed")
    os.close(descriptor)
    assert json.loads(target.read_text())["event"] == "attempt.failed"


def test_after_journald_was_restarted_lines_arrive_again(journald, monkeypatch):
    """The line that had no reader is sent to the new one, on every descriptor that led to the old one."""
    way = journald.connect()
    other = way.dup()
    environ = {VARIABLE: named(way.fileno())}
    both = (way.fileno(), other.fileno())
    stream = Stream(
        way.fileno(),
        lambda lost: b"lost %d\n" % lost,
        lambda: reconnect(both, address=journald.address, environ=environ),
    )
    stream.write(b"before\n")
    assert journald.read() == b"before\n"
    journald.restart()
    stream.write(b"after\n")
    journald.accept()
    assert journald.read() == b"trainerd\n\n5\n1\n0\n0\n0\nafter\n"
    assert is_journal_stream(other.fileno(), environ)
    way.close()
    other.close()


def test_while_journald_is_away_nothing_fails_and_its_return_is_noticed(journald, monkeypatch):
    monkeypatch.setattr(sinks, "RECONNECT_S", 0.0)
    way = journald.connect()
    environ = {VARIABLE: named(way.fileno())}
    stream = Stream(
        way.fileno(),
        lambda lost: b"lost %d\n" % lost,
        lambda: reconnect((way.fileno(),), address=journald.address, environ=environ),
    )
    journald.close()
    Path(journald.address).unlink()
    for _ in range(3):
        stream.write(b"without a reader\n")
    journald.__init__(journald.address)
    stream.write(b"again\n")
    journald.accept()
    assert journald.read().endswith(b"\nlost 3\nagain\n")
    way.close()


def test_a_named_pipe_gets_lines_again_with_its_next_reader(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    stream = Stream(writer, lambda lost: b"lost %d\n" % lost)
    os.close(reader)
    stream.write(b"without a reader\n")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    stream.write(b"again\n")
    assert os.read(reader, 100) == b"lost 1\nagain\n"
    stream.close()
    os.close(reader)
    os.close(writer)


def test_what_is_printed_to_the_journal_is_a_line_of_json(journald, monkeypatch):
    with journald.connect() as way:
        monkeypatch.setenv(VARIABLE, named(way.fileno()))
        printed = PrintedLines(way.fileno())
        print("Usage: trainerd run\n\nError: no such option", file=printed)
        emit("supervisor.failed", descriptor=way.fileno(), reason="no room\nat all", hint=None)
        first, second = journald.read().decode().splitlines()
    assert first.startswith("<4>")
    assert json.loads(first[3:])["message"] == "Usage: trainerd run\n\nError: no such option"
    assert second.startswith("<3>")
    failed = json.loads(second[3:])
    assert (failed["event"], failed["reason"]) == ("supervisor.failed", "no room; at all")


def test_a_line_to_a_closed_descriptor_is_lost(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    emit("supervisor.failed", descriptor=writer, reason="x")
    os.close(writer)
    emit("supervisor.failed", descriptor=writer, reason="x")
    assert sys.stderr is not None
