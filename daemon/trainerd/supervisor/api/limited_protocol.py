"""HTTP with limits on the time that any peer may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

REQUEST_LIMIT_S: Final = 10.0
"""How long one request may take to arrive as a whole, in seconds, however steadily its bytes come."""
READER_LIMIT_S: Final = 10.0
"""How long a client may leave an answer unread, in seconds, before the connection is cut."""
FIRST_REQUEST_S: Final = 0.5
"""How long a connection that was accepted and has not asked anything yet is waited for at the end, in
seconds."""


class LimitedProtocol(H11Protocol):
    """Closes connections that stay silent, requests that trickle and answers that are not read."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._request_limit: asyncio.TimerHandle | None = None
        self._reader_limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Not before the first request, as uvicorn has it: a peer that connects and stays silent would stay
        # for ever.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

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

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_request()

    def shutdown(self) -> None:
        """Close once what is in progress is answered.

        A connection that has not asked anything is given time to.
        """
        self.loop.call_later(FIRST_REQUEST_S if self.cycle is None else 0, self._shutdown_if_open)

    def _shutdown_if_open(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()
