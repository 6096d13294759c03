"""The page of one life of the supervisor: its address, from before jobs are looked at until the end."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from trainerd.errors import UserError

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Iterator

    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import Control
    from trainerd.supervisor.api.run_readings import RunReadings
    from trainerd.supervisor.api.web.web_access import WebAccess
    from trainerd.supervisor.api.web.web_address import WebAddress
    from trainerd.supervisor.api.web.web_server import WebSettings

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ServedPage:
    """A page that has its address and is to be served.

    Attributes:
        where: A TCP socket that listens, or the address of a Unix socket.
        access: What is asked of a request.
        paths: The state folder.
    """

    where: socket.socket | WebAddress
    access: WebAccess
    paths: StatePaths

    async def serve(
        self, control: Control, readings: RunReadings, *, stop: asyncio.Event, group_id: int | None
    ) -> None:
        """Serve it until `stop` is set."""
        from trainerd.supervisor.api.web.web_server import serve_web

        await serve_web(
            control, readings, self.access, self.where, stop=stop, paths=self.paths, group_id=group_id
        )


@contextlib.contextmanager
def page_of(web: WebSettings | None, paths: StatePaths, *, may_fail: bool) -> Iterator[ServedPage | None]:
    """Hold the address of the page for as long as the context lasts; None where there is none.

    Args:
        web: How it is served.
        paths: The state folder.
        may_fail: Whether jobs run already: then they matter more than a page that cannot be served.

    Raises:
        UserError: The address cannot be had, or the file of the token is open to others.
    """
    with contextlib.ExitStack() as stack:
        page = None
        if web is not None:
            # Here: who wants no page does not load what serves one.
            from trainerd.supervisor.api.web.web_address import listening_for_web
            from trainerd.supervisor.api.web.web_server import announce_web

            try:
                is_tcp = web.address.path is None
                listener = stack.enter_context(listening_for_web(web.address)) if is_tcp else None
                access = announce_web(web, paths, listener)
                page = ServedPage(listener if listener is not None else web.address, access, paths)
            except UserError as error:
                if not may_fail:
                    raise
                _log.error("web.failed", reason=error.message)
        yield page
