"""Connecting to a socket whose path may be longer than an address can be, as under a long TMPDIR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.supervisor.api.unix_socket import reachable_address

if TYPE_CHECKING:
    import socket
    from pathlib import Path


def connect(client: socket.socket, path: Path) -> None:
    """Connect to the socket at `path`."""
    with reachable_address(path) as address:
        client.connect(address)
