"""The image of a rank's tensor file in host memory: what the file will be, byte for byte.

`Arena` is one warm buffer that every save copies into: the copy is all that a periodic save costs the loop. The
buffer is kept, and can be faulted in before it is first needed (see `host_memory`).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch

from trainerd.checkpoint.direct_io import BLOCK_BYTES
from trainerd.checkpoint.host_memory import address_of, fault_in, host_memory
from trainerd.checkpoint.safetensors import TensorEntry, layout
from trainerd.training.device_copy import copy_from_cuda, is_on_cuda, lock_pages, unlock_pages
from trainerd.training.direct_file import PIECE_BYTES
from trainerd.training.host_copy import Move, is_plain_memory, move_all
from trainerd.training.tensors import TORCH_DTYPES, stored_form

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.training.snapshot import Snapshot

Shapes = tuple[tuple[str, str, torch.Size], ...]


class ImageLayout:
    """Where everything is in the image of one set of tensors. The same set has the same layout.

    Attributes:
        header: All bytes before the data.
        entries: Those tensors that have bytes, in the order in which these follow one another.
        size: Of the image, in bytes.
    """

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.header, entries = layout(shapes)
        self.size = len(self.header) + (entries[-1].end if entries else 0)
        self.entries = [entry for entry in entries if entry.end > entry.begin]

    @property
    def padded_size(self) -> int:
        """The size in whole blocks."""
        return -(-self.size // BLOCK_BYTES) * BLOCK_BYTES

    def offset_of(self, entry: TensorEntry) -> int:
        return len(self.header) + entry.begin


def stored_tensors(snapshot: Snapshot) -> tuple[dict[str, torch.Tensor], Shapes]:
    """Return the tensors in the form in which they lie in the file, and what the layout depends on."""
    stored: dict[str, torch.Tensor] = {}
    shapes: list[tuple[str, str, torch.Size]] = []
    for name, tensor in snapshot.tensors.items():
        stored[name], dtype = stored_form(tensor)
        shapes.append((name, dtype, stored[name].shape))
    return stored, tuple(shapes)


class _Place(NamedTuple):
    """Where a tensor lies in the arena."""

    name: str
    address: int
    bytes: int
    view: torch.Tensor


class Arena:
    """One warm host buffer.

    Invariants:
        Its memory only grows. A larger one replaces it, so there is never more than one.
        Between `fill` and the end of the write of what was filled, nobody fills it again: the writer's business.
        The values are those at the call of `fill`, whatever the caller does to the tensors when it has returned.
    """

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._is_locked = False
        self._layout: ImageLayout | None = None
        self._places: list[_Place] = []
        self._wait_for_devices: Callable[[], None] = _nothing

    def prepare(self, snapshot: Snapshot) -> None:
        """Make room for snapshots of these shapes, in pages that are there already. Reads no tensor's values."""
        stored, shapes = stored_tensors(snapshot)
        self._lay_out(shapes, uses_cuda=any(map(is_on_cuda, stored.values())))

    def fill(self, snapshot: Snapshot) -> ImageLayout:
        """Copy a snapshot's tensors in. When this returns, the live tensors may change."""
        stored, shapes = stored_tensors(snapshot)
        image = self._layout
        if image is None or image.shapes != shapes:
            image = self._lay_out(shapes, uses_cuda=any(map(is_on_cuda, stored.values())))
        moves: list[Move] = []
        from_cuda: list[tuple[torch.Tensor, torch.Tensor]] = []
        for name, address, size, view in self._places:
            tensor = stored[name]
            if is_plain_memory(tensor):
                moves.append((address, tensor.data_ptr(), size))
            elif is_on_cuda(tensor):
                from_cuda.append((view, tensor.detach()))
            else:
                view.copy_(tensor.detach())
        self._wait_for_devices = copy_from_cuda(from_cuda) if from_cuda else _nothing
        move_all(moves)
        return image

    def pieces(self, image: ImageLayout) -> Iterator[memoryview]:
        """Yield the image in the pieces in which it is written, once all of it has arrived."""
        assert self._memory is not None
        self._wait_for_devices()
        view = memoryview(self._memory)
        for begin in range(0, image.padded_size, PIECE_BYTES):
            yield view[begin : min(begin + PIECE_BYTES, image.padded_size)]

    def _lay_out(self, shapes: Shapes, *, uses_cuda: bool) -> ImageLayout:
        image = ImageLayout(shapes)
        memory = self._memory
        if memory is None or len(memory) < image.padded_size:
            self._give_back()
            memory = self._memory = host_memory(image.padded_size)
            fault_in(memory)
        if uses_cuda and not self._is_locked:
            self._is_locked = lock_pages(address_of(memory), len(memory))
        memory[: len(image.header)] = image.header
        base, octets = address_of(memory), torch.frombuffer(memory, dtype=torch.uint8)
        self._places = [
            _Place(
                entry.name,
                base + (begin := image.offset_of(entry)),
                size := entry.end - entry.begin,
                octets[begin : begin + size].view(TORCH_DTYPES[entry.dtype]).view(entry.shape),
            )
            for entry in image.entries
        ]
        self._layout = image
        return image

    def _give_back(self) -> None:
        """Let go of the memory before more is asked for: there is never twice the state."""
        if self._memory is not None and self._is_locked:
            unlock_pages(address_of(self._memory))
        self._memory, self._layout, self._places, self._is_locked = None, None, [], False


def _nothing() -> None:
    """Nothing is on its way."""
