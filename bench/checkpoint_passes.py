"""Processor time of each pass over the bytes of a save: `python -m bench.checkpoint_passes --size-mb 140`.

What a periodic save costs a loop that keeps all cores busy is processor time: the copy, the digest of what
was copied, the write, and what is read back with a digest of that. Each is done here by one thread with
nothing else in the process, in turn, and its own processor time counted, which other programs disturb less
than the time of day. Printed are medians, and each as a multiple of the copy; and what a copy would cost that
digests each piece while the processor's cache has it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainerd.checkpoint.digest import Hasher, digest_of_file
from trainerd.checkpoint.direct_io import open_new, write_at
from trainerd.checkpoint.host_memory import fault_in, host_memory
from trainerd.training.writing.host_copy import move

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE_BYTES = 512 << 10
CACHE_BYTES = 64 << 20
COPY, DIGEST, WRITE, READ_BACK = "copy", "digest of the copy", "write with O_DIRECT", "read back, digest"
TOGETHER = "copy and digest in pieces of 512 KiB"


class Passes:
    """Two buffers in huge pages and a file.

    Args:
        size: In bytes.
        folder: Where to write.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self._size = size
        self._source, self._target = host_memory(size), host_memory(size)
        for memory in (self._source, self._target):
            fault_in(memory)
        source = torch.frombuffer(self._source, dtype=torch.uint8)
        source.random_(256)
        self._addresses = [torch.frombuffer(each, dtype=torch.uint8).data_ptr() for each in self._memories]
        self._path = folder / "file"
        self._between = torch.zeros(CACHE_BYTES, dtype=torch.uint8)
        self.ways: dict[str, Callable[[], str | None]] = {
            COPY: self._copy,
            DIGEST: self._digest,
            TOGETHER: self._copy_and_digest,
            WRITE: self._write,
            READ_BACK: lambda: digest_of_file(self._path)[1],
        }

    @property
    def _memories(self) -> tuple[memoryview, memoryview]:
        return memoryview(self._target), memoryview(self._source)

    def round(self) -> dict[str, float]:
        """Go each way once, with other memory in the cache; return the processor time of each in seconds.

        Raises:
            ValueError: Two digests differ.
        """
        took: dict[str, float] = {}
        digests: set[str] = set()
        for name, way in self.ways.items():
            self._between.add_(1)
            began_s = time.thread_time()
            digest = way()
            took[name] = time.thread_time() - began_s
            digests.update([digest] if digest is not None else [])
        if len(digests) != 1:
            raise ValueError(f"one content has several digests: {digests}")
        return took

    def _copy(self) -> None:
        move(*self._addresses, self._size)

    def _digest(self) -> str:
        hasher = Hasher()
        hasher.update(self._memories[0])
        return hasher.digest()

    def _copy_and_digest(self) -> str:
        hasher, (target, source) = Hasher(), self._addresses
        for begin in range(0, self._size, PIECE_BYTES):
            count = min(PIECE_BYTES, self._size - begin)
            move(target + begin, source + begin, count)
            hasher.update(self._memories[0][begin : begin + count])
        return hasher.digest()

    def _write(self) -> None:
        self._path.unlink(missing_ok=True)
        descriptor = open_new(self._path)
        try:
            write_at(descriptor, self._memories[0], 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.checkpoint_passes", description=__doc__.partition("\n")[0])
    parser.add_argument("--size-mb", type=int, default=140)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--scratch", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        passes = Passes(args.size_mb << 20, Path(folder))
        passes.round()
        rounds = [passes.round() for _ in range(args.rounds)]
    print(f"{args.size_mb} MiB, {args.rounds} rounds, load {os.getloadavg()[0]:.1f}, one thread")
    middle = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    for name, taken_s in middle.items():
        print(f"{name:<40}{taken_s * 1e3:>8.1f} ms {taken_s / middle[COPY]:>6.2f} copies")
    for words, names in (
        ("a save", (COPY, DIGEST, WRITE, READ_BACK)),
        ("digested during the copy", (TOGETHER, WRITE, READ_BACK)),
    ):
        print(f"{words:<40}{'':>11} {sum(middle[name] for name in names) / middle[COPY]:>6.2f} copies")
    return 0


if __name__ == "__main__":
    sys.exit(main())
