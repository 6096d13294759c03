"""Large memory of the process, got from the system in huge pages where it has them.

Memory fresh from the system is faulted in page by page when it is first touched, which costs two to four
times the copy into it. Huge pages make that three times cheaper, and a direct write out of them too: the
kernel pins 512 times fewer pages. Forked children, such as data-loading workers, get zeros in its place: a
page shared with one would have to be copied at the next write to it. Their range of addresses stays taken. If
it were free, other memory could come to lie there, and would be unmapped when the child drops the object.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from typing import Final, TypeVar

Memory = TypeVar("Memory", bound=mmap.mmap)

_WIPE_ON_FORK: Final = 18
"""``MADV_WIPEONFORK`` of Linux 4.14, which Python does not name."""

TOUCH_BYTES: Final = 16 << 20
"""Faulted in by one call, without the interpreter lock."""

_memset: Final = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)(
    ctypes.cast(ctypes.CDLL(None).memset, ctypes.c_void_p).value or 0
)

_madvise: Final = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def host_memory(size: int) -> mmap.mmap:
    """Return zeroed memory of whole pages.

    Args:
        size: In bytes, rounded up to pages; at least one.

    Raises:
        OSError: There is not so much.
    """
    return host_memory_of(mmap.mmap, size)


def host_memory_of(kind: type[Memory], size: int) -> Memory:
    """Return what `host_memory` does, as an object of a class derived from `mmap.mmap`."""
    pages = max(1, -(-size // mmap.PAGESIZE))
    memory = kind(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel built without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    try:
        memory.madvise(_WIPE_ON_FORK)
    except OSError:  # another kernel, such as that of a sandbox
        memory.madvise(mmap.MADV_DONTFORK)
    return memory


def advise_huge_pages(address: int, size: int) -> None:
    """Ask the system for huge pages where memory is that is not touched yet; does nothing where it has none.

    Args:
        address: Where it begins.
        size: In bytes. Pages that lie in it only in part are left as they are.
    """
    begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin:
        _madvise(begin, end - begin, mmap.MADV_HUGEPAGE)


def address_of(memory: mmap.mmap) -> int:
    """Return where memory begins. Valid for as long as `memory` is kept."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def fault_in(memory: mmap.mmap, begin: int = 0, end: int | None = None) -> None:
    """Have the system provide the pages of fresh memory now; writes zeros."""
    address, end = address_of(memory), len(memory) if end is None else min(end, len(memory))
    for offset in range(begin, end, TOUCH_BYTES):
        _memset(address + offset, 0, min(TOUCH_BYTES, end - offset))
