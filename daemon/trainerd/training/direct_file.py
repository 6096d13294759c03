"""A file written past the page cache, in few large calls, and digested on the way.

It leaves the page cache to the data loaders and costs the training loop next to no CPU. One thread writes a piece
while another hashes it and gets the next one ready.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.digest import Hasher
from trainerd.checkpoint.direct_io import open_new, write_at
from trainerd.checkpoint.manifest import FileEntry
from trainerd.checkpoint.side_thread import SideThread
from trainerd.checkpoint.staging import DATA_SYNCED, DATA_WRITTEN
from trainerd.contract.durable import translated_space_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

PIECE_BYTES: Final = 32 << 20
"""One call to the kernel. Each return from one may wait for the interpreter lock, so they are few."""


class AbandonedError(Exception):
    """The write was called off. Never leaves the package."""


def write_direct(
    path: Path, pieces: Iterable[memoryview], size: int, *, is_called_off: Callable[[], bool] = lambda: False
) -> FileEntry:
    """Write a new file durably and return its entry.

    Args:
        path: Where; must not exist.
        pieces: Its bytes, in memory that begins at a page and of whole blocks except for the last piece, which
            is followed by as much memory as fills its last block. The next piece is asked for while one is being
            written, from another thread; that one's memory is free again when the one after the next is asked for.
        size: Bytes in all.
        is_called_off: Asked between two pieces.

    Raises:
        AbandonedError: It was called off.
        SpaceError: The disk is full or read-only.
        OSError: Anything else the filesystem says. The file is lost then.
    """
    hasher = Hasher()
    with translated_space_errors(path):
        descriptor = open_new(path)
        try:
            with SideThread("trainerd-hash") as side:
                _write_pieces(descriptor, pieces, size, hasher=hasher, side=side, is_called_off=is_called_off)
            os.ftruncate(descriptor, size)
            DATA_WRITTEN.hit()
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    DATA_SYNCED.hit()
    return FileEntry(path.name, size, hasher.digest())


def _write_pieces(
    descriptor: int,
    pieces: Iterable[memoryview],
    size: int,
    *,
    hasher: Hasher,
    side: SideThread,
    is_called_off: Callable[[], bool],
) -> None:
    source = iter(pieces)

    def digest_and_get_next(used: memoryview) -> memoryview | None:
        hasher.update(used)
        return next(source, None)

    offset, piece = 0, next(source, None)
    while piece is not None:
        if is_called_off():
            raise AbandonedError
        used = min(len(piece), size - offset)
        side.run(digest_and_get_next, piece[:used])
        try:
            write_at(descriptor, piece, offset)
        finally:
            following = side.wait()  # whatever happened: nobody else may look at the memory when this returns
        offset, piece = offset + used, following
    assert offset == size, f"{offset} bytes came, not {size}"
