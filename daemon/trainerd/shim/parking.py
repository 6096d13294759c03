"""How a prepared shim waits for the next `trainerd exec` of its user, once the one that started it has left.

It listens at an address that the kernel keeps and forgets: an abstract one, no file.

Invariants: only processes of the same user are answered, on both sides. One that waits ends after a named
limit, when it is asked to by a signal, and when another has its address.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PARK: Final = b"park "
"""Begins the order to wait; the address follows."""

PARKED: Final = b"parked"
"""Its answer."""

PARKED_LIMIT_S: Final = 900.0
"""How long a prepared shim waits for the next `trainerd exec`, in seconds."""

CONNECT_LIMIT_S: Final = 0.5
"""How long one that is there may take to answer, in seconds."""

_LOOK_S: Final = 0.5
# A shim holds them.
_ENDS_IT: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1})
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


def wait_parked(address: bytes, orders: socket.socket, has_ended: Callable[[], bool]) -> socket.socket | None:
    """Wait for the next one; return the connection to it, None if none came.

    Args:
        address: Where to wait.
        orders: Where the order to wait came from; it is told, and closed.
        has_ended: Returns whether there is nothing to wait with any more.
    """
    with orders, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            listener.bind(address)
            listener.listen(1)
            orders.send(PARKED)
        except OSError:
            return None  # another shim waits there, or the process that asked is gone
        orders.close()
        listener.settimeout(_LOOK_S)
        until_s = time.monotonic() + PARKED_LIMIT_S
        while time.monotonic() < until_s and not has_ended() and not is_asked_to_end():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                connection.settimeout(CONNECT_LIMIT_S)
                if is_of_this_user(connection):
                    return connection
                connection.close()
    return None


def is_asked_to_end() -> bool:
    """Return whether a signal has come; it would be taken for a request to the attempt."""
    return bool(signal.sigpending() & _ENDS_IT)


def is_of_this_user(connection: socket.socket) -> bool:
    """Return whether the process at the other end has the user of this one."""
    answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(answer)[1]) == os.geteuid()
