"""Serves the API on a Unix socket inside the supervisor's own event loop.

uvicorn does the HTTP; it installs no signal handlers, writes no log of its own and never ticks: it waits for
`stop` like everything else on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from trainerd.supervisor.api.unix_socket import BACKLOG, is_trusted_peer, listening

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator

    from fastapi import FastAPI

CONNECTIONS_MAX: Final = 64
"""So many at once are served; each one more is answered with 503."""
CONNECTIONS_HEARD_MAX: Final = 4 * CONNECTIONS_MAX
"""Beyond so many, a connection is closed unheard: the supervisor needs descriptors for its jobs."""
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


async def serve(
    app: FastAPI,
    where: Path | socket.socket,
    *,
    stop: asyncio.Event,
    ready: asyncio.Event | None = None,
    group_id: int | None = None,
) -> None:
    """Answer until `stop` is set, then finish what is in progress.

    Args:
        app: What answers.
        where: A path, where a socket that nobody answers on is replaced and ours removed at the end; or a
            socket that listens, and goes on listening.
        stop: Ends it.
        ready: Set once requests are answered.
        group_id: Group whose members may speak too, None for none.

    Raises:
        LockedError: Somebody answers on the socket already.
        UserError: It cannot be bound there.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(where)) if isinstance(where, Path) else where
        # uvicorn closes what it is given.
        await _Server(_config(app, group_id), stop, ready).serve(sockets=[_copy(listener)])


def _copy(listener: socket.socket) -> socket.socket:
    return listener.dup()


def _config(app: FastAPI, group_id: int | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=type("_Protocol", (_Guarded,), {"GROUP_ID": group_id}),
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


class _Guarded(H11Protocol):
    """Speaks HTTP with a limited number of peers: our own user, root and one group.

    The mode of the socket does not matter. A connection is refused until it was judged, and its limits are
    set before that: a judgement that fails leaves a refused connection that is closed in time.
    """

    GROUP_ID: ClassVar[int | None] = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._refusal: _Refusal | None = _STRANGER
        self._request_limit: asyncio.TimerHandle | None = None
        self._reader_limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Not before the first request, as uvicorn has it: whoever connects and stays silent would stay for
        # ever.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        if len(self.connections) > CONNECTIONS_HEARD_MAX:
            transport.abort()
            return
        self._refusal = self._judged(transport.get_extra_info("socket"))

    def _judged(self, connection: socket.socket) -> _Refusal | None:
        if not is_trusted_peer(connection, group_id=self.GROUP_ID):
            return _STRANGER
        # Those who came before go on being served.
        return _ONE_TOO_MANY if len(self.connections) > CONNECTIONS_MAX else None

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
