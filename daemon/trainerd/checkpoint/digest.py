"""Digests of files: xxh3-128, which finds any accident and is faster than every disk.

It is no defence against a user who may write into the folder, and so may write the digests too.
The algorithm is Yann Collet's XXH3, 128 bits, seed 0, printed in its canonical big-endian form:
https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

import xxhash

from trainerd.checkpoint.direct_io import open_to_read, read_at
from trainerd.checkpoint.host_memory import host_memory

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DIGEST_PATTERN", "Hasher", "digest_of_bytes", "digest_of_file"]

PREFIX: Final = "xxh3-128:"
DIGEST_PATTERN: Final = re.compile(r"xxh3-128:[0-9a-f]{32}")

READ_BYTES: Final = 4 * 1024 * 1024
"""One read: few calls, and small enough to be hashed while it is in the processor's cache."""


class Hasher:
    """A digest in the making, and the count of what went in."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self.bytes = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._hash.update(data)
        self.bytes += len(data) if not isinstance(data, memoryview) else data.nbytes

    def digest(self) -> str:
        return PREFIX + self._hash.hexdigest()


def digest_of_bytes(data: bytes | bytearray | memoryview) -> str:
    """Return the digest of what is in memory."""
    return PREFIX + xxhash.xxh3_128(data).hexdigest()


def digest_of_file(path: Path) -> tuple[int, str]:
    """Read a file once; return how many bytes it has and their digest.

    Raises:
        OSError: It could not be read.
    """
    hasher = Hasher()
    descriptor = open_to_read(path)
    try:
        piece = memoryview(host_memory(min(os.fstat(descriptor).st_size, READ_BYTES)))
        while count := read_at(descriptor, piece, hasher.bytes):
            hasher.update(piece[:count])
            if count < len(piece):
                break
    finally:
        os.close(descriptor)
    return hasher.bytes, hasher.digest()
