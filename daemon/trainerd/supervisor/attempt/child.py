"""Shims that this process started itself, and waiting for descriptors without polling."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainerd.contract.process import ProcessIdentity


class ShimChild:
    """A shim started by this process, and the pipe that it closes when its ranks are on record.

    Args:
        identity: Who it is, known before it has said so itself.
        is_ready: The reading end of that pipe; this object closes it.
    """

    def __init__(self, identity: ProcessIdentity, is_ready: int) -> None:
        self.identity = identity
        self.is_ready: int | None = is_ready

    def close(self) -> None:
        if self.is_ready is not None:
            os.close(self.is_ready)
            self.is_ready = None


def collect_child(descriptor: int) -> None:
    """Collect an ended child, so that no zombie stays. An adopted shim is for its own parent to collect."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)


async def readable(descriptor: int) -> None:
    """Wait, without a limit and at no cost, until a descriptor is readable or closed at its other end."""
    loop = asyncio.get_running_loop()
    is_readable = asyncio.Event()
    loop.add_reader(descriptor, is_readable.set)
    try:
        await is_readable.wait()
    finally:
        loop.remove_reader(descriptor)
