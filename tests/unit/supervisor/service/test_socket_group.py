"""A group that may use the socket, and nobody besides."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct

import pytest

from tests.support.unix_sockets import connect
from trainerd.supervisor.api.unix_socket import is_trusted_peer, listening

TRAINERS = 4242


class Peer:
    """The other end of a connection, as the kernel would vouch for it."""

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...] = ()):
        self.answers = {
            socket.SO_PEERCRED: struct.pack("3i", 1, uid, gid),
            59: struct.pack(f"{len(groups)}I", *groups),
        }

    def getsockopt(self, _level, option, length):
        assert length <= 1024, "CPython refuses larger buffers"
        return self.answers[option]

    def fileno(self):
        return -1


class Mute(Peer):
    """One of which the kernel says nothing."""

    def getsockopt(self, _level, _option, _length):
        raise OSError(errno.ENODATA, "No data available")


@pytest.mark.parametrize(
    ("peer", "is_trusted"),
    [
        (Peer(os.geteuid(), 77), True),
        (Peer(0, 0), True),
        (Peer(65534, TRAINERS), True),
        (Peer(65534, 77, (5, TRAINERS)), True),
        (Peer(65534, 77, (5, 6)), False),
        (Peer(65534, 77), False),
    ],
)
def test_members_of_the_group_are_trusted_too(peer, is_trusted):
    assert is_trusted_peer(peer, group_id=TRAINERS) is is_trusted


def test_whoever_cannot_be_told_is_not_trusted():
    assert not is_trusted_peer(Mute(0, 0), group_id=TRAINERS)


def test_without_a_group_nobody_else_is_trusted():
    assert not is_trusted_peer(Peer(65534, TRAINERS, (TRAINERS,)))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")
def test_the_socket_belongs_to_the_group_and_a_member_is_known_by_the_kernel(tmp_path):
    path = tmp_path / "trainerd.sock"
    with listening(path, group_id=TRAINERS) as listener:
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, TRAINERS)
        child = os.fork()
        if child == 0:
            try:
                client = socket.socket(socket.AF_UNIX)
                os.setgroups([7, TRAINERS])
                os.setgid(65534)
                connect(client, path)
                client.recv(1)
            finally:
                os._exit(0)
        listener.settimeout(20)  # a child that fails never comes
        connection, _ = listener.accept()
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        assert struct.unpack("3i", credentials)[2] == 65534
        groups = connection.getsockopt(socket.SOL_SOCKET, 59, 1024)
        assert TRAINERS in struct.unpack(f"{len(groups) // 4}I", groups)
        connection.close()
        os.waitpid(child, 0)
