"""Serves the API on a Unix socket inside the supervisor's own event loop.

uvicorn does the HTTP; it installs no signal handlers, writes no log of its own and never ticks: it waits for
`stop` like everything else on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from trainerd.contract.folder_owner import ROOT_UID
from trainerd.supervisor.api.job_guard import JobGuard
from trainerd.supervisor.api.unix_socket import BACKLOG, is_trusted_peer, listening, peer_credentials

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator

    from fastapi import FastAPI

CONNECTIONS_MAX: Final = 64
"""So many at once are served; each one more is answered with 503."""
CONNECTIONS_HEARD_MAX: Final = 4 * CONNECTIONS_MAX
"""Beyond so many, a connection is closed unheard: the supervisor needs descriptors for its jobs."""
PEER_CONNECTIONS_MAX: Final = 16
"""So many of one user of the group are served at once, and twice as many heard."""
GROUP_CONNECTIONS_MAX: Final = CONNECTIONS_MAX - PEER_CONNECTIONS_MAX
"""So many of all users of the group are: the supervisor's own user and root always get through."""
KEEP_ALIVE_S: Final = 5
"""How long a silent connection is kept, in seconds; also one that has not asked anything yet."""
REQUEST_LIMIT_S: Final = 10.0
"""How long one request may take to arrive as a whole, in seconds, however steadily its bytes come."""
READER_LIMIT_S: Final = 10.0
"""How long a client may leave an answer unread, in seconds, before the connection is cut."""
CLOSE_TIMEOUT_S: Final = 2
"""How long answers in progress may take once the supervisor stops, in seconds."""
FIRST_REQUEST_S: Final = 0.5
"""How long a connection that was accepted and has not asked anything yet is waited for at the end, in
seconds."""
HEADER_BYTES_MAX: Final = 16 * 1024

_Refusal = tuple[HTTPStatus, dict[str, str | None]]

_STRANGER: Final[_Refusal] = (
    HTTPStatus.FORBIDDEN,
    {"error": "this socket is for the user who runs the supervisor, and for root", "hint": None},
)
_ONE_TOO_MANY: Final[_Refusal] = (
    HTTPStatus.SERVICE_UNAVAILABLE,
    {
        "error": f"the supervisor talks with {CONNECTIONS_MAX} others already",
        "hint": "try again; somebody keeps many connections open: `ss -xp | grep trainerd` shows who",
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
    app: FastAPI,
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
        where: A path, where a socket that nobody answers on is replaced and ours removed at the end; or a
            socket that listens, and goes on listening.
        stop: Ends it.
        ready: Set once requests are answered.
        group_id: Group whose members may speak too, None for none.
        runs: Folder of the runs, whose jobs may change nothing; None tells no jobs apart.

    Raises:
        LockedError: Somebody answers on the socket already.
        UserError: It cannot be bound there.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(where)) if isinstance(where, Path) else where
        # uvicorn closes what it is given.
        await _Server(_config(app, group_id, runs), stop, ready).serve(sockets=[_copy(listener)])


def _copy(listener: socket.socket) -> socket.socket:
    return listener.dup()


def _config(app: FastAPI, group_id: int | None, runs: Path | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=type("_Protocol", (_Guarded,), {"GROUP_ID": group_id, "RUNS": runs}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
        h11_max_incomplete_event_size=HEADER_BYTES_MAX,
    )


class _Server(uvicorn.Server):
    """uvicorn's server, less its signal handlers and its ten ticks a second."""

    def __init__(self, config: uvicorn.Config, stop: asyncio.Event, ready: asyncio.Event | None) -> None:
        super().__init__(config)
        self._stop = stop
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self._ready is not None:
            self._ready.set()

    async def main_loop(self) -> None:
        await self._stop.wait()


def _hosts() -> set[int]:
    return {os.geteuid(), ROOT_UID}


class _Guarded(H11Protocol):
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
        self._request_limit: asyncio.TimerHandle | None = None
        self._reader_limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Not before the first request, as uvicorn has it: whoever connects and stays silent would stay for
        # ever.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
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

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_limits()
        super().connection_lost(exc)

    def _end_limits(self) -> None:
        for timer in (self._request_limit, self._reader_limit, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        self._request_limit = self._reader_limit = self.timeout_keep_alive_task = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reader_limit is None:
            self._reader_limit = self.loop.call_later(READER_LIMIT_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader_limit is not None:
            self._reader_limit.cancel()
            self._reader_limit = None

    def _watch_request(self) -> None:
        """Limit the time that the request which is arriving may take, all its bytes together."""
        is_arriving = self.conn.their_state is h11.SEND_BODY or (
            self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        )
        if is_arriving and self._request_limit is None:
            self._request_limit = self.loop.call_later(REQUEST_LIMIT_S, self.transport.abort)
        elif not is_arriving and self._request_limit is not None:
            self._request_limit.cancel()
            self._request_limit = None

    def shutdown(self) -> None:
        """Close once what is in progress is answered.

        A connection that has not asked anything is given time to.
        """
        self.loop.call_later(FIRST_REQUEST_S if self.cycle is None else 0, self._shutdown_if_open)

    def _shutdown_if_open(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self._refusal is None:
            super().data_received(data)
            self._watch_request()
        elif not self.transport.is_closing():
            # Answered once something was read: closing before would reset the connection under the answer.
            status, problem = self._refusal
            body = json.dumps(problem).encode()
            head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
            self.transport.close()
