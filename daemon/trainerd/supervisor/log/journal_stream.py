"""The way to journald: whether a descriptor leads there, the priority of a line, and a new connection.

systemd connects standard output and standard error of a unit to journald and says so in JOURNAL_STREAM. A
line may begin with ``<N>``, its priority as syslog has it, which journald takes off (`man sd-daemon`).
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

VARIABLE: Final = "JOURNAL_STREAM"
JOURNALD: Final = "/run/systemd/journal/stdout"
IDENTIFIER: Final = "trainerd"
CONNECT_LIMIT_S: Final = 0.2
"""How long a connection to journald may take."""

PRIORITIES: Final[Mapping[str, int]] = {
    "critical": 2,
    "error": 3,
    "warning": 4,
    # The units keep what is at least a notice, and leave out what systemd says of an ordinary start.
    "info": 5,
    "debug": 7,
}
"""Syslog's priority of each level."""


def is_journal_stream(descriptor: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a descriptor leads to journald."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get(VARIABLE) == f"{status.st_dev}:{status.st_ino}"


def prioritised(line: bytes, level: str) -> bytes:
    """Return a line with its priority in front."""
    return f"<{PRIORITIES.get(level, PRIORITIES['warning'])}>".encode() + line


def reconnect(
    descriptors: tuple[int, ...] = (1, 2),
    *,
    address: str = JOURNALD,
    environ: MutableMapping[str, str] = os.environ,
) -> None:
    """Put a new connection to journald in the place of each descriptor that led there.

    After journald was stopped and started, the old one has no reader.

    Raises:
        OSError: journald does not answer.
    """
    ours = [each for each in descriptors if is_journal_stream(each, environ)]
    if not ours:
        raise OSError("no descriptor leads to journald")
    # Identifier, unit (journald finds it by itself), priority, whether lines have a prefix, and forwarding.
    header = f"{IDENTIFIER}\n\n{PRIORITIES['info']}\n1\n0\n0\n0\n".encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as way:
        way.settimeout(CONNECT_LIMIT_S)
        way.connect(address)
        way.shutdown(socket.SHUT_RD)
        way.sendall(header)
        way.setblocking(True)
        status = os.fstat(way.fileno())
        for each in ours:
            os.dup2(way.fileno(), each)
    environ[VARIABLE] = f"{status.st_dev}:{status.st_ino}"
