"""Answers while the program of the supervisor is replaced: a fork of the old one, gone as soon as the new one is ready.

The new program imports for a second before it can answer, and the process has to stay the same one. So the old
program leaves a copy of itself behind, which has everything in memory and shares the listening socket. It knows how
things were a moment ago and answers with that. What asks for something to be done, or for history, is kept waiting
and handed to the new program, byte by byte, once that is ready.

Invariants: it touches neither the journal nor a job, and does not hold the lock; it hands on nobody whom the new
program would have refused; and it ends when the other end of its pipe is closed, by readiness or by death.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trainerd.supervisor.api.unix_socket import is_trusted_peer, reachable_address

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_S: Final = 60.0
"""Longest life of a stand-in, should the new program neither become ready nor end."""
HEAD_LIMIT_S: Final = 5.0
"""How long the head of a request is waited for."""
RELAY_LIMIT_S: Final = 30.0
"""How long one that was handed on may take."""
HEAD_BYTES_MAX: Final = 16 * 1024

_CHUNK_BYTES: Final = 1 << 16
_HEAD_END: Final = b"\r\n\r\n"

Answer = Callable[[str], bytes | None]
"""Returns the JSON that answers GET of a path; None if the new program has to."""


def leave_stand_in(
    listener: int,
    path: Path,
    *,
    answer: Answer,
    group_id: int | None,
    not_to_hold: tuple[int, ...],
) -> int:
    """Leave a copy of this process behind that answers; return the descriptor whose end ends it.

    Called with one thread, and no event loop running. A crash at any moment closes the descriptor.

    Args:
        listener: Descriptor of the socket that listens.
        path: Its name, where the new program will answer.
        answer: Says, from memory, how things were.
        group_id: Group whose members may ask, None for none.
        not_to_hold: Descriptors that the copy closes first, such as the lock's.
    """
    ended, alive = os.pipe()
    first = os.fork()
    if first:
        os.close(ended)
        os.waitpid(first, 0)
        return alive
    try:
        # Of a grandchild nobody has to collect the end.
        if os.fork() == 0:
            for descriptor in (alive, *not_to_hold):
                os.close(descriptor)
            asyncio.run(_StandIn(path, answer, group_id).run(socket.socket(fileno=listener), ended))
    except BaseException:  # noqa: BLE001 (there is nobody to raise it to: this is the whole of the copy)
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)  # none of the old program's farewells are for the copy to say


class _StandIn:
    def __init__(self, path: Path, answer: Answer, group_id: int | None) -> None:
        self._path = path
        self._answer = answer
        self._group_id = group_id
        self._is_over = asyncio.Event()
        self._conversations: set[asyncio.Task[None]] = set()

    async def run(self, listener: socket.socket, ended: int) -> None:
        """Answer until the other end of the pipe `ended` is closed, then hand on those who wait."""
        loop = asyncio.get_running_loop()
        loop.add_reader(ended, self._is_over.set)
        listener.setblocking(False)
        # Not by a task: one that is cancelled may have accepted somebody, who would hear nothing.
        loop.add_reader(listener, self._accept, listener)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_over.wait(), LIMIT_S)
        loop.remove_reader(listener)
        loop.remove_reader(ended)
        listener.close()
        self._is_over.set()
        if self._conversations:
            await asyncio.wait(self._conversations, timeout=RELAY_LIMIT_S)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):  # the new program was quicker
            connection, _ = listener.accept()
            task = asyncio.create_task(self._converse(connection))
            self._conversations.add(task)
            task.add_done_callback(self._conversations.discard)

    async def _converse(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection, contextlib.suppress(OSError, TimeoutError):
            connection.setblocking(False)
            if not is_trusted_peer(connection, group_id=self._group_id):
                return
            async with asyncio.timeout(HEAD_LIMIT_S):
                head = await _head_of(connection)
            method, _, rest = head.partition(b" ")
            path = rest.partition(b" ")[0].decode("latin-1")
            body = self._answer(path) if method == b"GET" else None
            if body is not None:
                said = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
                await loop.sock_sendall(connection, said + b"content-length: %d\r\n\r\n" % len(body) + body)
            elif head:
                await self._is_over.wait()
                async with asyncio.timeout(RELAY_LIMIT_S):
                    await self._hand_on(connection, head)

    async def _hand_on(self, connection: socket.socket, head: bytes) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as successor, reachable_address(self._path) as address:
            successor.setblocking(False)
            await loop.sock_connect(successor, address)
            # One request only: the next one is for the new program to take.
            head = head.replace(_HEAD_END, b"\r\nconnection: close" + _HEAD_END, 1)
            await loop.sock_sendall(successor, head)
            while chunk := await loop.sock_recv(successor, _CHUNK_BYTES):
                await loop.sock_sendall(connection, chunk)


async def _head_of(connection: socket.socket) -> bytes:
    """Return what was read up to the end of a request's head; nothing if there is no end to it."""
    head = b""
    while _HEAD_END not in head:
        chunk = await asyncio.get_running_loop().sock_recv(connection, _CHUNK_BYTES)
        head += chunk
        if not chunk or len(head) > HEAD_BYTES_MAX:
            return b""
    return head
