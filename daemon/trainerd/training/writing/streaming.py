"""The image of a rank's tensor file, made piece by piece while it is written.

An emergency save may come before any other, so it does without a buffer of the size of the state: it copies
through a small ring, one piece being written while the next is copied. Nothing computes meanwhile, so the
tensors do not change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from trainerd.checkpoint.direct_io import BLOCK_BYTES
from trainerd.checkpoint.host_memory import address_of, fault_in, host_memory
from trainerd.training.writing.device_copy import CUDA, Runtime, verified_on_host
from trainerd.training.writing.host_copy import is_plain_memory, move
from trainerd.training.writing.staging_buffer import ImageLayout, stored_tensors

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

    from trainerd.training.state.snapshot import Snapshot

SLOT_BYTES: Final = 16 << 20
"""One piece. Small enough that the first one is soon written, large enough for the disk's full speed."""

SLOTS: Final = 2
"""A piece that was handed out stays as it is until the one after the next is asked for."""


class Ring:
    """The memory that urgent saves go through, kept from one to the next.

    To have 16 MB provided by the system when they were needed cost 60 ms of the 140 that such a save of 140
    MB took, on a virtual machine whose host had to find them first.
    """

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def prepare(self, size: int) -> None:
        """Have the memory provided now for images of `size` bytes. May come from any thread, at any time."""
        if not _is_enough(self._memory, size):
            memory = host_memory(_needed_bytes(size))
            fault_in(memory)
            self._memory = memory

    def memory(self, size: int) -> mmap.mmap:
        """Return it, for an image of `size` bytes: warm if it was prepared, or used before."""
        memory = self._memory  # looked at once: another thread may put something else there
        if memory is None or not _is_enough(memory, size):
            memory = self._memory = host_memory(_needed_bytes(size))
        return memory


def _is_enough(memory: mmap.mmap | None, size: int) -> bool:
    return memory is not None and len(memory) >= _needed_bytes(size)


def _needed_bytes(size: int) -> int:
    return min(SLOT_BYTES * SLOTS, -(-size // BLOCK_BYTES) * BLOCK_BYTES)


def streamed(
    snapshot: Snapshot, ring: Ring, runtime: Runtime = CUDA
) -> tuple[ImageLayout, Iterator[memoryview]]:
    """Return the layout of a snapshot and its image in pieces.

    The ring must not be used for anything else meanwhile.
    """
    stored, shapes = stored_tensors(snapshot)
    runtime.synchronize(stored.values())  # what is read from another thread must have been computed
    image = ImageLayout(shapes)
    return image, _pieces(_sources(stored, image, runtime), ring.memory(image.size))


def _pieces(sources: Iterator[tuple[int, int, torch.Tensor]], memory: mmap.mmap) -> Iterator[memoryview]:
    base, view = address_of(memory), memoryview(memory)
    slot = filled = 0
    for address, size, _owner in sources:
        begin = 0
        while begin < size:
            count = min(size - begin, SLOT_BYTES - filled)
            move(base + slot * SLOT_BYTES + filled, address + begin, count)
            begin, filled = begin + count, filled + count
            if filled == SLOT_BYTES:
                yield view[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES]
                slot, filled = (slot + 1) % SLOTS, 0
    if filled:
        begin = slot * SLOT_BYTES
        yield view[begin : begin + -(-filled // BLOCK_BYTES) * BLOCK_BYTES]


def _sources(
    stored: dict[str, torch.Tensor], image: ImageLayout, runtime: Runtime
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield the address and size of what follows one another in the image, and whose memory that is."""
    header = torch.frombuffer(bytearray(image.header), dtype=torch.uint8)
    yield header.data_ptr(), len(image.header), header
    for entry in image.entries:
        tensor = stored[entry.name].detach()
        if runtime.is_on_device(tensor):
            tensor = verified_on_host(tensor, entry.name, runtime)
        elif not is_plain_memory(tensor):
            tensor = tensor.cpu().resolve_conj().resolve_neg().contiguous()
        yield tensor.data_ptr(), entry.end - entry.begin, tensor
