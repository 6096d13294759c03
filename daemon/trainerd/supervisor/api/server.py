"""Serves the API on a Unix socket inside the supervisor's own event loop.

uvicorn does the HTTP; it installs no signal handlers, writes no log of its own and never ticks: it waits for
`stop` like everything else on the loop.
"""

from __future__ import annotations

import contextlib
import json
import os
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from trainerd.contract.folder_owner import ROOT_UID
from trainerd.supervisor.api.job_guard import JobGuard
from trainerd.supervisor.api.limited_protocol import LimitedProtocol
from trainerd.supervisor.api.stoppable_server import StoppableServer, server_config
from trainerd.supervisor.api.unix_socket import is_trusted_peer, listening, peer_credentials

if TYPE_CHECKING:
    import asyncio
    import socket

    import uvicorn
    from starlette.types import ASGIApp

CONNECTIONS_MAX: Final = 64
"""So many at once are served; each one more is answered with 503."""
CONNECTIONS_HEARD_MAX: Final = 4 * CONNECTIONS_MAX
"""Beyond so many, a connection is closed unheard: the supervisor needs descriptors for its jobs."""
PEER_CONNECTIONS_MAX: Final = 16
"""So many of one user of the group are served at once, and twice as many heard."""
GROUP_CONNECTIONS_MAX: Final = CONNECTIONS_MAX - PEER_CONNECTIONS_MAX
"""So many of all users of the group are: the supervisor's own user and root always get through."""

_Refusal = tuple[HTTPStatus, dict[str, str | None]]

_STRANGER: Final[_Refusal] = (
    HTTPStatus.FORBIDDEN,
    {"error": "this socket is for the user who runs the supervisor, and for root", "hint": None},
)
_ONE_TOO_MANY: Final[_Refusal] = (
    HTTPStatus.SERVICE_UNAVAILABLE,
    {
        "error": f"the supervisor talks with {CONNECTIONS_MAX} others already",
        "hint": "try again; a program keeps many connections open: `ss -xp | grep trainerd` shows it",
    },
)

_TOO_MANY_OF_ONE: Final[_Refusal] = (
    HTTPStatus.SERVICE_UNAVAILABLE,
    {
        "error": f"members of the group have {PEER_CONNECTIONS_MAX} connections each at most, "
        f"and {GROUP_CONNECTIONS_MAX} together",
        "hint": "close some, or try again",
    },
)


async def serve(
    app: ASGIApp,
    where: Path | socket.socket,
    *,
    stop: asyncio.Event,
    ready: asyncio.Event | None = None,
    group_id: int | None = None,
    runs: Path | None = None,
) -> None:
    """Answer until `stop` is set, then finish what is in progress.

    Args:
        app: What answers.
        where: A path, where a socket without a listener is replaced and ours removed at the end; or a
            socket that listens, and goes on listening.
        stop: Ends it.
        ready: Set once requests are answered.
        group_id: Group whose members may speak too, None for none.
        runs: Folder of the runs, whose jobs may change nothing; None tells no jobs apart.

    Raises:
        LockedError: Another process answers on the socket already.
        UserError: It cannot be bound there.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(where)) if isinstance(where, Path) else where
        # uvicorn closes what it is given.
        await StoppableServer(_config(app, group_id, runs), stop, ready).serve(sockets=[_copy(listener)])


def _copy(listener: socket.socket) -> socket.socket:
    return listener.dup()


def _config(app: ASGIApp, group_id: int | None, runs: Path | None) -> uvicorn.Config:
    return server_config(app, type("_Protocol", (_Guarded,), {"GROUP_ID": group_id, "RUNS": runs}))


def _hosts() -> set[int]:
    return {os.geteuid(), ROOT_UID}


class _Guarded(LimitedProtocol):
    """Speaks HTTP with a limited number of peers: our own user, root and one group.

    The mode of the socket does not matter. A connection is refused until it was judged, and its limits are
    set before that: a judgement that fails leaves a refused connection that is closed in time.
    """

    GROUP_ID: ClassVar[int | None] = None
    RUNS: ClassVar[Path | None] = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._refusal: _Refusal | None = _STRANGER
        self._pid, self._uid = 0, -1

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        self._pid, self._uid, _ = peer_credentials(connection)
        if self._crowd(twice=True) is not None:
            transport.abort()
            return
        self._refusal = self._judged(connection)

    def _crowd(self, *, twice: bool = False) -> _Refusal | None:
        """Return why this connection is one too many, None if it is not.

        Guests, who are neither our own user nor root, are counted for themselves: none keeps those out.

        Args:
            twice: Whether to ask for the limits beyond which a connection is closed unheard.
        """
        uids = [each._uid for each in self.connections if isinstance(each, _Guarded)]  # noqa: SLF001
        guests = [uid for uid in uids if uid not in _hosts()]
        if self._uid in _hosts():
            limit = CONNECTIONS_HEARD_MAX if twice else CONNECTIONS_MAX
            return _ONE_TOO_MANY if len(uids) - len(guests) > limit else None
        factor = 2 if twice else 1
        of_this = guests.count(self._uid)
        is_over = of_this > factor * PEER_CONNECTIONS_MAX or len(guests) > factor * GROUP_CONNECTIONS_MAX
        return _TOO_MANY_OF_ONE if is_over else None

    def _judged(self, connection: socket.socket) -> _Refusal | None:
        if not is_trusted_peer(connection, group_id=self.GROUP_ID):
            return _STRANGER
        if self.RUNS is not None and self._uid == os.geteuid():
            self.app = JobGuard(self.app, self._pid, self.RUNS)
        # Those who came before go on being served.
        return self._crowd()

    def data_received(self, data: bytes) -> None:
        if self._refusal is None:
            super().data_received(data)
        elif not self.transport.is_closing():
            # Answered once something was read: closing before would reset the connection under the answer.
            status, problem = self._refusal
            body = json.dumps(problem).encode()
            head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
            self.transport.close()
