"""A file written past the page cache, in few large calls, and digested on the way.

It leaves the page cache to the data loaders and costs the training loop next to no CPU. One thread writes
while another hashes: in step with it where memory is used again for the next piece, and behind it where all
stays as it is.
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
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

PIECE_BYTES: Final = 32 << 20
"""One call to the kernel. Each return from one may wait for the interpreter lock, so they are few."""


class AbandonedError(Exception):
    """The write was called off. Never leaves the package."""


def write_direct(
    path: Path,
    pieces: Iterable[memoryview],
    size: int,
    *,
    is_called_off: Callable[[], bool] = lambda: False,
    wait_to_digest: Callable[[], object] | None = None,
) -> FileEntry:
    """Write a new file durably and return its entry.

    Args:
        path: Where; must not exist.
        pieces: Its bytes, in memory that begins at a page and of whole blocks except for the last piece,
            which is followed by as much memory as fills its last block. The next piece is asked for while one
            is being written, from another thread; that one's memory is free again when the one after the next
            is asked for.
        size: Bytes in all.
        is_called_off: Asked between two pieces.
        wait_to_digest: Given if all pieces stay as they are until this returns: then they are hashed behind
            the writing, and not before this was called and came back.

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
                if wait_to_digest is None:
                    source: Iterable[memoryview] = _digested_on_the_way(pieces, size, hasher, side)
                else:
                    source = _digested_behind(pieces, size, hasher, side, wait_to_digest)
                _write_pieces(descriptor, source, size, is_called_off)
            os.ftruncate(descriptor, size)
            DATA_WRITTEN.hit()
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    DATA_SYNCED.hit()
    return FileEntry(path.name, size, hasher.digest())


def _write_pieces(
    descriptor: int, pieces: Iterable[memoryview], size: int, is_called_off: Callable[[], bool]
) -> None:
    offset = 0
    for piece in pieces:
        if is_called_off():
            raise AbandonedError
        write_at(descriptor, piece, offset)
        offset += len(piece)
    assert offset >= size, f"{offset} bytes came, not {size}"


def _digested_on_the_way(
    pieces: Iterable[memoryview], size: int, hasher: Hasher, side: SideThread
) -> Iterator[memoryview]:
    """Yield each piece while another thread hashes it and gets the next one."""
    source = iter(pieces)

    def digest_and_get_next(used: memoryview) -> memoryview | None:
        hasher.update(used)
        return next(source, None)

    piece = next(source, None)
    while piece is not None:
        side.run(digest_and_get_next, piece[: size - hasher.bytes])
        try:
            yield piece
        finally:
            piece = side.wait()  # always: no other thread may read the memory once this returns


def _digested_behind(
    pieces: Iterable[memoryview],
    size: int,
    hasher: Hasher,
    side: SideThread,
    wait_to_digest: Callable[[], object],
) -> Iterator[memoryview]:
    """Yield each piece at once, and have another thread hash them in their order in its own time."""
    side.run(lambda _: wait_to_digest(), None)
    begin = count = 0
    for piece in pieces:
        side.run(hasher.update, piece[: size - begin])
        begin += len(piece)
        count += 1
        yield piece
    for _ in range(count + 1):
        side.wait()
