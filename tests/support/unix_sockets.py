"""Sockets whose path may be longer than an address can be, as under a long TMPDIR."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from trainerd.supervisor.api.unix_socket import reachable_address

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator


def connect(client: socket.socket, path: Path) -> None:
    """Connect to the socket at `path`."""
    with reachable_address(path) as address:
        client.connect(address)


def bind(listener: socket.socket, path: Path) -> None:
    """Bind a socket to `path`."""
    with reachable_address(path) as address:
        listener.bind(address)


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """Yield a temporary folder whose path is short whatever TMPDIR says, for programs that need an address
    there."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="trainerd-") as folder:
        yield Path(folder)
