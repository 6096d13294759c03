"""What the machine itself allows: the same bytes copied, written and read with nothing around them."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import torch

from trainerd.checkpoint.host_memory import fault_in, host_memory

WRITE_BYTES = 32 << 20
SMALL_FILE_BYTES = 32 << 10


class Limits:
    """Warm memory of the size of the state, and a file of it.

    Args:
        size: In bytes.
        folder: Where to write.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.folder = folder
        self.memory = host_memory(self.size)
        fault_in(self.memory)
        self.target = torch.frombuffer(self.memory, dtype=torch.uint8)
        self.source = torch.ones(self.size, dtype=torch.uint8)
        folder.mkdir(parents=True)

    def copy(self) -> float:
        """Seconds to copy the bytes by one call of torch's with the threads that it has.

        The source was written a moment ago, as a step writes what is saved. The target has lain as long as a
        save's: the host of a virtual machine may have taken its memory meanwhile, and brings it back at the
        first touch.
        """
        self.source.add_(1)
        began_s = time.perf_counter()
        self.target.copy_(self.source)
        return time.perf_counter() - began_s

    def write(self) -> float:
        """Seconds to write the bytes with O_DIRECT and to commit them as a checkpoint is committed."""
        staging, final = self.folder / "staging", self.folder / "final"
        old = self.folder / "old"
        began_s = time.perf_counter()
        staging.mkdir()
        descriptor = os.open(staging / "data", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT)
        view = memoryview(self.memory)
        for begin in range(0, self.size, WRITE_BYTES):
            os.pwrite(descriptor, view[begin : begin + WRITE_BYTES], begin)
        os.fsync(descriptor)
        os.close(descriptor)
        for name in ("tree", "manifest"):
            descriptor = os.open(staging / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(descriptor, bytes(SMALL_FILE_BYTES))
            os.fsync(descriptor)
            os.close(descriptor)
        sync_folder(staging)
        if final.exists():
            final.rename(old)
        staging.rename(final)
        sync_folder(self.folder)
        taken_s = time.perf_counter() - began_s
        if old.exists():
            for path in old.iterdir():
                path.unlink()
            old.rmdir()
        return taken_s

    def read(self) -> float:
        """Seconds to read the bytes with O_DIRECT into warm memory. Nothing of it is in the page cache."""
        view = memoryview(self.memory)
        began_s = time.perf_counter()
        descriptor = os.open(self.folder / "final" / "data", os.O_RDONLY | os.O_DIRECT)
        for begin in range(0, self.size, WRITE_BYTES):
            os.preadv(descriptor, [view[begin : begin + WRITE_BYTES]], begin)
        os.close(descriptor)
        return time.perf_counter() - began_s


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)
