"""The image of a rank's tensor file in host memory: what the file will be, byte for byte.

`Arena` is one warm buffer that every save copies into: the copy is all that a periodic save costs the loop. The
buffer is kept, and can be faulted in before it is first needed (see `host_memory`). What has been copied can be
written while the rest is being copied.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from trainerd.checkpoint.direct_io import BLOCK_BYTES
from trainerd.checkpoint.host_memory import address_of, fault_in, host_memory
from trainerd.checkpoint.safetensors import TensorEntry, layout
from trainerd.training.device_copy import copy_from_cuda, is_on_cuda, lock_pages, unlock_pages
from trainerd.training.direct_file import PIECE_BYTES, AbandonedError
from trainerd.training.host_copy import is_plain_memory, move_all, threads_for
from trainerd.training.tensors import TORCH_DTYPES, stored_form

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.training.snapshot import Snapshot

FIRST_PIECE_BYTES: Final = 8 << 20

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


class _Part(NamedTuple):
    """Where a tensor, or a part of a large one, lies in the arena."""

    name: str
    address: int
    skipped: int
    bytes: int


class Filling:
    """One snapshot on its way into the arena. Made by `Arena.begin`.

    One thread calls `copy`; meanwhile another one may write what has arrived already, piece by piece.
    """

    def __init__(self, image: ImageLayout, memory: memoryview, parts: list[list[_Part]]) -> None:
        self.image = image
        self._memory = memory
        self._parts = parts
        self._arrived = 0
        self._has_failed = False
        self._changed = threading.Condition()
        self._wait_for_devices: Callable[[], None] = _nothing

    def copy(self, stored: dict[str, torch.Tensor], views: dict[str, torch.Tensor]) -> None:
        """Copy all tensors. When this returns, they may change."""
        addresses: dict[str, int] = {}
        from_cuda: list[tuple[torch.Tensor, torch.Tensor]] = []
        try:
            for name, view in views.items():
                tensor = stored[name]
                if is_plain_memory(tensor):
                    addresses[name] = tensor.data_ptr()
                elif is_on_cuda(tensor):
                    from_cuda.append((view, tensor.detach()))
                else:
                    view.copy_(tensor.detach())
            if from_cuda:
                self._wait_for_devices = copy_from_cuda(from_cuda)
            threads = threads_for(self.image.size)
            for parts in self._parts:
                moves = [
                    (address, addresses[name] + skipped, size)
                    for name, address, skipped, size in parts
                    if name in addresses
                ]
                move_all(moves, threads=threads)
                self._tell(arrived=1)
        except BaseException:
            self._tell(has_failed=True)
            raise

    def pieces(self) -> Iterator[memoryview]:
        """Yield the image in the pieces in which it is written, each as soon as it has arrived.

        Raises:
            AbandonedError: `copy` failed, and has said why.
        """
        begin = 0
        for index, end in enumerate(piece_ends(self.image.padded_size)):
            with self._changed:
                while self._arrived <= index and not self._has_failed:
                    self._changed.wait()
            if self._has_failed:
                raise AbandonedError
            self._wait_for_devices()
            yield self._memory[begin:end]
            begin = end

    def _tell(self, *, arrived: int = 0, has_failed: bool = False) -> None:
        with self._changed:
            self._arrived += arrived
            self._has_failed |= has_failed
            self._changed.notify_all()


class Arena:
    """One warm host buffer.

    Invariants:
        Its memory only grows. A larger one replaces it, so there is never more than one.
        Between `begin` and the end of the write of what was filled, nobody fills it again: the writer's business.
        The values are those at the call of `begin`, whatever the caller does to the tensors once all are copied.
    """

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._is_locked = False
        self._layout: ImageLayout | None = None
        self._views: dict[str, torch.Tensor] = {}
        self._parts: list[list[_Part]] = []

    def prepare(self, snapshot: Snapshot) -> None:
        """Make room for snapshots of these shapes, in pages that are there already. Reads no tensor's values."""
        stored, shapes = stored_tensors(snapshot)
        self._lay_out(shapes, uses_cuda=any(map(is_on_cuda, stored.values())))

    def begin(self, snapshot: Snapshot) -> tuple[Filling, Callable[[], None]]:
        """Return what a snapshot becomes, for whoever writes it, and the function that copies it."""
        stored, shapes = stored_tensors(snapshot)
        image = self._layout
        if image is None or image.shapes != shapes:
            image = self._lay_out(shapes, uses_cuda=any(map(is_on_cuda, stored.values())))
        assert self._memory is not None
        views, filling = self._views, Filling(image, memoryview(self._memory), self._parts)
        return filling, lambda: filling.copy(stored, views)

    def fill(self, snapshot: Snapshot) -> Filling:
        """Copy a snapshot's tensors in. When this returns, the live tensors may change."""
        filling, copy = self.begin(snapshot)
        copy()
        return filling

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
        octets = torch.frombuffer(memory, dtype=torch.uint8)
        self._views = {
            entry.name: octets[(begin := image.offset_of(entry)) : begin + entry.end - entry.begin]
            .view(TORCH_DTYPES[entry.dtype])
            .view(entry.shape)
            for entry in image.entries
        }
        self._parts = _parts_by_piece(image, address_of(memory))
        self._layout = image
        return image

    def _give_back(self) -> None:
        """Let go of the memory before more is asked for: there is never twice the state."""
        if self._memory is not None and self._is_locked:
            unlock_pages(address_of(self._memory))
        self._memory, self._layout, self._is_locked = None, None, False
        self._views, self._parts = {}, []


def piece_ends(padded_size: int) -> list[int]:
    """Return where the pieces of an image end. The first one is smaller: the disk need not wait for long."""
    return [*range(FIRST_PIECE_BYTES, padded_size, PIECE_BYTES), padded_size]


def _parts_by_piece(image: ImageLayout, base: int) -> list[list[_Part]]:
    """Return, for every piece, which parts of which tensors it consists of."""
    result: list[list[_Part]] = []
    entries = iter(image.entries)
    entry = next(entries, None)
    begin = 0
    for end in piece_ends(image.padded_size):
        parts: list[_Part] = []
        while entry is not None and (offset := image.offset_of(entry)) < end:
            size = entry.end - entry.begin
            first, last = max(offset, begin), min(offset + size, end)
            parts.append(_Part(entry.name, base + first, first - offset, last - first))
            if offset + size > end:
                break  # the rest of it is in the next piece
            entry = next(entries, None)
        result.append(parts)
        begin = end
    return result


def _nothing() -> None:
    """Nothing is on its way."""
