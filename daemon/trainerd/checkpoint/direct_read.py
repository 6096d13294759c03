"""A file read into memory and digested on the way, at the speed of the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.digest import Hasher
from trainerd.checkpoint.direct_io import open_to_read, read_at
from trainerd.checkpoint.host_memory import fault_in, host_memory
from trainerd.checkpoint.side_thread import SideThread

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_digested"]

PIECE_BYTES: Final = 8 << 20
"""One call to the kernel: the disk is at full speed, and what came is still in the processor's cache when it is
hashed."""


def read_digested(path: Path) -> tuple[memoryview, str]:
    """Read a file once; return its content, in memory that begins at a page, and its digest.

    This thread reads a piece while another one hashes the piece before and has the system provide the memory for
    the next: fresh memory would otherwise cost as much time as the disk.

    Raises:
        OSError: It could not be read.
    """
    descriptor = open_to_read(path)
    try:
        size = os.fstat(descriptor).st_size
        memory = host_memory(-(-size // PIECE_BYTES) * PIECE_BYTES)
        view, hasher = memoryview(memory), Hasher()
        fault_in(memory, 0, PIECE_BYTES)

        def digest_and_provide(arrived: memoryview) -> None:
            hasher.update(arrived)
            fault_in(memory, hasher.bytes + PIECE_BYTES, hasher.bytes + 2 * PIECE_BYTES)

        arrived = view[:0]
        with SideThread("trainerd-digest") as side:
            for begin in range(0, size, PIECE_BYTES):
                side.run(digest_and_provide, arrived)
                try:
                    count = read_at(descriptor, view[begin : begin + PIECE_BYTES], begin)
                finally:
                    side.wait()
                arrived = view[begin : begin + count]
                if count < PIECE_BYTES:
                    break  # the end, of the file as it is now
        hasher.update(arrived)
        return view[: hasher.bytes], hasher.digest()
    finally:
        os.close(descriptor)
