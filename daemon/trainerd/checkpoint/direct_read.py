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
"""One call to the kernel. The disk rests between two calls, so they are few; what comes after the last one, its
hashing, is short."""


def read_digested(path: Path) -> tuple[memoryview, str]:
    """Read a file once; return its content, in memory that begins at a page, and its digest.

    This thread does nothing but read. Another one has the system provide the memory, ahead of it: fresh memory
    would otherwise cost as much time as the disk. A third one hashes what came, behind it.

    Raises:
        OSError: It could not be read.
    """
    descriptor = open_to_read(path)
    try:
        size = os.fstat(descriptor).st_size
        memory = host_memory(-(-size // BLOCK_BYTES) * BLOCK_BYTES)
        view, hasher = memoryview(memory), Hasher()

        def provide(begin: int) -> None:
            fault_in(memory, begin, begin + PIECE_BYTES)

        begins = range(0, size, PIECE_BYTES)
        with SideThread("trainerd-memory") as provider, SideThread("trainerd-digest") as digester:
            for begin in begins:
                provider.run(provide, begin)
            reads = 0
            for begin in begins:
                provider.wait()
                piece = view[begin : begin + PIECE_BYTES]
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
