"""Where the page is served: ``HOST:PORT`` or ``unix:PATH``, and the token that opens it."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract.durable import write_file
from trainerd.contract.secret_file import why_not_secret
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN_BYTES: Final = 32
TOKEN_CHARACTERS_MIN: Final = 16
_TOKEN_MODE: Final = 0o600
_PORT_MAX: Final = 65535
_BACKLOG: Final = 64


@dataclass(frozen=True)
class WebAddress:
    """Where the page is served.

    Attributes:
        host: Name or address to bind; empty for a socket.
        port: Port, 0 for any.
        path: The Unix socket, None over TCP.
    """

    host: str = ""
    port: int = 0
    path: Path | None = None


def parse_web_address(text: str) -> WebAddress:
    """Return the address that a text means.

    Raises:
        UserError: It means none.
    """
    if text.startswith("unix:"):
        if text == "unix:":
            raise UserError("--web: unix: has no path", hint="such as --web unix:/run/trainerd/page.sock")
        return WebAddress(path=Path(text.removeprefix("unix:")))
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    is_port = port.isascii() and port.isdecimal() and int(port[:6]) <= _PORT_MAX
    if not separator or not host or not is_port or (":" in host and not text.startswith("[")):
        raise UserError(
            f"--web: {text!r} is no address",
            hint="HOST:PORT such as 127.0.0.1:7878 or [::1]:7878, or unix:PATH",
        )
    return WebAddress(host, int(port))


@contextlib.contextmanager
def listening_for_web(address: WebAddress) -> Iterator[socket.socket]:
    """Listen on a TCP address for as long as the context lasts.

    Raises:
        UserError: It cannot be had.
    """
    where = f"{address.host}:{address.port}"
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, target = found[0]
        listener = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise UserError(f"--web: {where}: {error.strerror}", hint="use an address of this machine") from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(target)
            listener.listen(_BACKLOG)
        except OSError as error:
            hint = "another program listens there: choose another port, such as 7879"
            raise UserError(f"--web: cannot listen on {where}: {error.strerror}", hint=hint) from error
        yield listener


def is_loopback(address: WebAddress) -> bool:
    """Return whether only this machine can reach an address."""
    return address.path is not None or address.host in {"localhost", "::1"} or address.host.startswith("127.")


def keep_token(path: Path) -> str:
    """Return the token of a state folder, which is made if there is none.

    Raises:
        UserError: Others can read it, or it is too short to be one.
        SpaceError: It cannot be written.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        write_file(path, f"{token}\n".encode(), mode=_TOKEN_MODE)
        return token
    except (OSError, ValueError) as error:
        raise UserError(f"--web: {path} cannot be read: {error}", hint="remove it for a new token") from error
    wrong = why_not_secret(path, os.geteuid())
    if wrong is not None:
        raise UserError(f"--web: {wrong[0]}", hint=wrong[1])
    if len(token) < TOKEN_CHARACTERS_MIN:
        raise UserError(
            f"--web: {path} holds fewer than {TOKEN_CHARACTERS_MIN} characters",
            hint="remove it for a new token",
        )
    return token
