"""A file written past the page cache, in few large calls, and digested on the way.

O_DIRECT leaves the page cache to the data loaders and costs the training loop next to no CPU. Where the
filesystem refuses it (tmpfs, some network ones) the same bytes are written through the cache. Hashing and
writing overlap: one thread hashes a piece while another writes it.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Self

from trainerd.checkpoint.digest import Hasher
from trainerd.checkpoint.manifest import FileEntry
from trainerd.checkpoint.staging import DATA_SYNCED, DATA_WRITTEN
from trainerd.contract.durable import translated_space_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

PIECE_BYTES: Final = 32 << 20
"""One call to the kernel. Each return from one may wait for the interpreter lock, so they are few."""
BLOCK_BYTES: Final = mmap.PAGESIZE

_REFUSES_DIRECT: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


class AbandonedError(Exception):
    """The write was called off. Never leaves the package."""


def write_direct(
    path: Path, pieces: Iterable[memoryview], size: int, *, is_called_off: Callable[[], bool] = lambda: False
) -> FileEntry:
    """Write a new file durably and return its entry.

    Args:
        path: Where; must not exist.
        pieces: Its bytes, in memory that begins at a page and of whole blocks except for the last piece, which
            is followed by as much memory as fills its last block. A piece is asked for once the one before is
            written, so they may share their memory.
        size: Bytes in all.
        is_called_off: Asked between two pieces.

    Raises:
        AbandonedError: It was called off.
        SpaceError: The disk is full or read-only.
        OSError: Anything else the filesystem says. The file is lost then.
    """
    hasher = Hasher()
    with translated_space_errors(path):
        descriptor = _open(path)
        try:
            with _SideThread() as side:
                _write_pieces(descriptor, pieces, size, hasher=hasher, side=side, is_called_off=is_called_off)
            os.ftruncate(descriptor, size)
            DATA_WRITTEN.hit()
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    DATA_SYNCED.hit()
    return FileEntry(path.name, size, hasher.digest())


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_DIRECT, 0o666)
    except OSError as error:
        if error.errno not in _REFUSES_DIRECT:
            raise
        path.unlink(missing_ok=True)  # some filesystems make the file before they refuse
        return os.open(path, flags, 0o666)


def _write_pieces(
    descriptor: int,
    pieces: Iterable[memoryview],
    size: int,
    *,
    hasher: Hasher,
    side: _SideThread,
    is_called_off: Callable[[], bool],
) -> None:
    offset = 0
    for piece in pieces:
        if is_called_off():
            raise AbandonedError
        used = min(len(piece), size - offset)
        side.run(hasher.update, piece[:used])
        _write_at(descriptor, piece, offset)
        side.wait()
        offset += used
    assert offset == size, f"{offset} bytes came, not {size}"


def _write_at(descriptor: int, piece: memoryview, offset: int) -> None:
    done = 0
    while done < len(piece):
        try:
            done += os.pwrite(descriptor, piece[done:], offset + done)
        except OSError as error:
            if error.errno != errno.EINVAL or not _stop_direct(descriptor):
                raise


def _stop_direct(descriptor: int) -> bool:
    """Go on through the page cache; return whether that changes anything."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if not flags & os.O_DIRECT:
        return False
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return True


class _SideThread:
    """One thread that does one thing at a time beside this one."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[tuple[Callable[[Any], Any], Any] | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="trainerd-hash", daemon=True)

    def run(self, function: Callable[[Any], Any], argument: Any) -> None:
        self._tasks.put((function, argument))

    def wait(self) -> None:
        error = self._done.get()
        if error is not None:
            raise error

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task[0](task[1])
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                self._done.put(error)
            else:
                self._done.put(None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._tasks.put(None)
        self._thread.join()
