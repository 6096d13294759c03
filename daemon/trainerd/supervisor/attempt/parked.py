"""Finds the prepared shim that an earlier `trainerd exec` of this user has left waiting: see `shim.parking`.

The address is derived from all that the shim and its standby have inherited: a process that asks there would
have started the same.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.shim.parking import CONNECT_LIMIT_S, is_of_this_user
from trainerd.shim.standby_fit import lasting_part
from trainerd.version import VERSION

if TYPE_CHECKING:
    from trainerd.contract.records import LaunchRecord

_NAMESPACES: Final = Path("/proc/self/ns")


def address_of(launch: LaunchRecord, traits: tuple[object, ...]) -> bytes:
    """Return where a shim waits that was prepared for a launch, by a process with some traits.

    Raises:
        OSError: /proc cannot be read.
    """
    root = os.stat("/")  # noqa: PTH116 - of this process
    inherited = (
        VERSION,
        os.geteuid(),
        lasting_part(launch),
        traits,
        sorted(str(each.readlink()) for each in _NAMESPACES.iterdir()),
        (root.st_dev, root.st_ino),
        Path("/proc/self/cgroup").read_bytes(),
    )
    digest = hashlib.sha256(repr(inherited).encode("utf-8", "surrogateescape")).hexdigest()
    return f"\0trainerd-standby-{digest[:40]}".encode("ascii")


def connect(address: bytes) -> socket.socket | None:
    """Return a connection to the shim that waits at an address, None if none does."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(CONNECT_LIMIT_S)
    try:
        connection.connect(address)
        if is_of_this_user(connection):
            return connection
    except OSError:
        pass
    connection.close()
    return None
