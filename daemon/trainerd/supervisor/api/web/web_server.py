"""Serves the page over TCP, or on a Unix socket of its own for a proxy."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from trainerd.supervisor.api.limited_protocol import LimitedProtocol
from trainerd.supervisor.api.server import serve
from trainerd.supervisor.api.stoppable_server import StoppableServer, server_config
from trainerd.supervisor.api.web.web_access import WebAccess
from trainerd.supervisor.api.web.web_address import WebAddress, is_loopback, keep_token

if TYPE_CHECKING:
    import asyncio
    import socket

    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import Control
    from trainerd.supervisor.api.run_readings import RunReadings

WEB_CONNECTIONS_MAX: Final = 64
"""How many connections over TCP are open at once; each one more is closed."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class WebSettings:
    """How the page is served.

    Attributes:
        address: Where.
        allows_actions: Whether it may stop and resume jobs.
    """

    address: WebAddress
    allows_actions: bool = False


class _WebProtocol(LimitedProtocol):
    """HTTP with a limited number of peers, whose requests are judged by `WebGuard`."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > WEB_CONNECTIONS_MAX:
            transport.abort()


def announce_web(settings: WebSettings, paths: StatePaths, listener: socket.socket | None) -> WebAccess:
    """Print where the page is and how it is opened; return what is asked of its requests.

    Raises:
        UserError: The file of the token is open to others.
        SpaceError: It cannot be written.
    """
    if listener is None:
        _print(f"the page: unix:{settings.address.path}, for a proxy of this user, root or the group")
        return WebAccess(None, allows_actions=settings.allows_actions)
    token = keep_token(paths.web_token)
    port = int(listener.getsockname()[1])
    host = settings.address.host
    host = f"[{host}]" if ":" in host else host
    from trainerd.supervisor.log.journal_stream import is_journal_stream

    if is_journal_stream(2):  # members of other groups read that
        _print(f"the page: http://{host}:{port}/?token=…, with the token from {paths.web_token}")
    else:
        _print(f"the page: http://{host}:{port}/?token={token}")
    if not is_loopback(settings.address):
        _print(f"the page is open to the network of {host}, without TLS: the token can be read on the way")
    return WebAccess(token, allows_actions=settings.allows_actions, port=port)


def _print(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


async def serve_web(
    control: Control,
    readings: RunReadings,
    access: WebAccess,
    where: socket.socket | WebAddress,
    *,
    stop: asyncio.Event,
    paths: StatePaths,
    group_id: int | None = None,
) -> None:
    """Serve the page until `stop` is set. What goes wrong with it is logged, and stops nothing else.

    Args:
        control: The supervisor.
        readings: What is read of runs beyond the views.
        access: What is asked of a request.
        where: A TCP socket that listens, or the address of a Unix socket.
        stop: Ends it.
        paths: The state folder.
        group_id: Group whose members may use the Unix socket.
    """
    try:
        from trainerd.supervisor.api.web.web_app import create_web_app

        app = create_web_app(control, readings, access, stop=stop)
        if isinstance(where, WebAddress):
            assert where.path is not None, "over TCP it is given a socket"
            await serve(app, where.path, stop=stop, group_id=group_id, runs=paths.runs)
        else:
            config = server_config(app, _WebProtocol)
            await StoppableServer(config, stop, None).serve(sockets=[where.dup()])
    except Exception as error:  # noqa: BLE001 - the jobs do not depend on it
        _log.error("web.failed", reason=f"{type(error).__name__}: {error}")
