"""The shutdown inhibitor against a fake system bus."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading

import pytest

from trainerd.supervisor.preemption_notices.logind_source import LogindSource
from trainerd.supervisor.preemption_notices.system_bus import METHOD_RETURN, REPLY_SERIAL, message
from trainerd.supervisor.preemption_notices.taking import NotSeenError

NOW = 1_800_000_000.0


class Clock:
    def wall_s(self):
        return NOW

    def monotonic_s(self):
        return 0.0


class FakeBus:
    """Lets in who asks, and answers as logind does; an unrequested signal comes first."""

    def __init__(self, path):
        self.is_preparing = False
        self.refuses = False
        self.lock = None
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._server.accept()
                with peer, contextlib.suppress(OSError, struct.error):
                    self._talk(peer)

    def _talk(self, peer):
        for answer in (b"OK 1234\r\n", b"AGREE_UNIX_FD\r\n", b""):
            line = b""
            while not line.endswith(b"\r\n"):  # the first call may be right behind the last line
                if not (byte := peer.recv(1)):
                    return
                line += byte
            peer.sendall(b"REJECTED\r\n" if self.refuses else answer)
        while head := peer.recv(16, socket.MSG_WAITALL):
            _, _, _, _, body_bytes, serial, fields_bytes = struct.unpack("<cBBBIII", head)
            rest = peer.recv(-(-fields_bytes // 8) * 8 + body_bytes, socket.MSG_WAITALL)
            peer.sendall(message(4, 1, {1: ("o", "/x"), 3: ("s", "NameAcquired")}, ("noise",)))
            self._answer(peer, serial, rest)

    def _answer(self, peer, serial, rest):
        reply = {REPLY_SERIAL: ("u", serial), 6: ("s", ":1.2")}
        body, descriptors = b"", []
        if b"PreparingForShutdown" in rest:
            body = b"\x01b\0\0" + struct.pack("<I", self.is_preparing)
        elif b"InhibitDelayMaxUSec" in rest:
            body = b"\x01t\0\0\0\0\0\0" + struct.pack("<Q", 5_000_000)
        elif b"Inhibit" in rest:
            assert b"delay" in rest
            self.lock, theirs = os.pipe()
            descriptors = [theirs]
        data = bytearray(message(METHOD_RETURN, 9, reply))
        data[4:8] = struct.pack("<I", len(body))
        socket.send_fds(peer, [bytes(data) + body], descriptors)
        for one in descriptors:
            os.close(one)

    def is_locked(self):
        os.set_blocking(self.lock, False)
        try:
            return os.read(self.lock, 1) != b""
        except BlockingIOError:
            return True

    def close(self):
        self._server.close()


@pytest.fixture
def bus(tmp_path):
    fake = FakeBus(str(tmp_path / "bus"))
    yield fake
    fake.close()


def test_a_shutdown_is_a_notice_and_waits_until_the_jobs_have_left(bus, tmp_path):
    left = False
    source = LogindSource(Clock(), lambda: left, str(tmp_path / "bus"))
    assert source.look() == ()
    assert bus.is_locked()
    assert not os.get_inheritable(source._lock)
    bus.is_preparing = True
    (notice,) = source.look()
    assert (notice.deadline_wall_s, notice.text(NOW)) == (
        NOW + 5,
        "logind shuts this machine down at 08:00:05 UTC",
    )
    source.look()
    assert bus.is_locked()
    left = True
    assert source.look() == (notice,)
    assert not bus.is_locked()
    bus.is_preparing = False
    assert source.look() == ()
    assert bus.is_locked()
    source.release()


def test_a_bus_that_is_not_there_or_lets_no_user_in_is_no_notice(bus, tmp_path):
    with pytest.raises(NotSeenError, match="No such file"):
        LogindSource(Clock(), lambda: True, str(tmp_path / "none")).look()
    bus.refuses = True
    source = LogindSource(Clock(), lambda: True, str(tmp_path / "bus"))
    with pytest.raises(NotSeenError, match="does not let this user in"):
        source.look()
    bus.refuses = False
    assert source.look() == ()
    source.release()
