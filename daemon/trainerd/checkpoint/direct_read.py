"""A file read into memory and digested on the way, at the speed of the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.digest import Hasher
from trainerd.checkpoint.direct_io import BLOCK_BYTES, open_to_read, read_at
from trainerd.checkpoint.host_memory import fault_in, host_memory
from trainerd.checkpoint.side_thread import SideThread

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_digested"]

PIECE_BYTES: Final = 16 << 20
"""One call to the kernel. The disk rests between two calls, so they are few."""

SMALL_BYTES: Final = 2 << 20
"""A file up to this size is read in one piece, by one thread: to start two others takes longer than it does.

The first and the last piece of a larger one are of this size: memory has to be there before the disk can
begin, and the last bytes are hashed when it has ended."""


def piece_ends(size: int) -> list[int]:
    """Return where the pieces of a file of `size` bytes end.

    They grow at first and shrink towards the end.
    """
    ends, piece, left = [], SMALL_BYTES, size
    while left > 0:
        shrunk = max(SMALL_BYTES, left // 2 // SMALL_BYTES * SMALL_BYTES)
        piece = min(piece, shrunk, PIECE_BYTES)
        left -= min(piece, left)
        ends.append(size - left)
        piece *= 2
    return ends


def read_digested(path: Path) -> tuple[memoryview, str]:
    """Read a file once; return its content, in memory that begins at a page, and its digest.

    This thread does nothing but read. A second one has the system provide the memory, ahead of it: fresh
    memory would otherwise cost as much time as the disk. A third one hashes what came, behind it.

    Raises:
        OSError: It could not be read.
    """
    descriptor = open_to_read(path)
    try:
        size = os.fstat(descriptor).st_size
        memory = host_memory(-(-size // BLOCK_BYTES) * BLOCK_BYTES)
        view, hasher = memoryview(memory), Hasher()
        if size <= SMALL_BYTES:
            hasher.update(view[: read_at(descriptor, view, 0)])
            return view[: hasher.bytes], hasher.digest()
        ends = piece_ends(size)
        pieces = list(zip([0, *ends], ends, strict=False))
        with SideThread("trainerd-memory") as provider, SideThread("trainerd-digest") as digester:
            for begin, end in pieces:
                provider.run(lambda span: fault_in(memory, *span), (begin, end))
            reads = 0
            for begin, end in pieces:
                provider.wait()
                piece = view[begin : -(-end // BLOCK_BYTES) * BLOCK_BYTES]
                count = read_at(descriptor, piece, begin)
                digester.run(hasher.update, piece[:count])
                reads += 1
                if count < len(piece):
                    break  # the end, of the file as it is now
            for _ in range(reads):
                digester.wait()
        return view[: hasher.bytes], hasher.digest()
    finally:
        os.close(descriptor)
