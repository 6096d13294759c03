"""uvicorn's server, as part of a process that has signals, logs and an end of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import uvicorn

from trainerd.supervisor.api.unix_socket import BACKLOG

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Generator

    from starlette.types import ASGIApp

    from trainerd.supervisor.api.limited_protocol import LimitedProtocol

KEEP_ALIVE_S: Final = 5
"""How long a silent connection is kept, in seconds; also one that has not asked anything yet."""
CLOSE_TIMEOUT_S: Final = 2
"""How long answers in progress may take once the supervisor stops, in seconds."""
HEADER_BYTES_MAX: Final = 16 * 1024


def server_config(app: ASGIApp, protocol: type[LimitedProtocol]) -> uvicorn.Config:
    """Return how `app` is served: without a log of its own, in bounded time."""
    return uvicorn.Config(
        app,
        http=protocol,
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


class StoppableServer(uvicorn.Server):
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
