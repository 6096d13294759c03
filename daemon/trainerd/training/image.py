"""The image of a rank's tensor file in host memory: what the file will be, byte for byte.

`Arena` is one warm buffer that every save copies into: the copy is all that a periodic save costs the loop.
Memory fresh from the system costs two to four times the copy in page faults, so the buffer is kept, and faulted
in before it is first needed. `streamed` needs no buffer of that size: an emergency save, which may come before
any other, copies piece by piece through a small one.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

import torch

from trainerd.checkpoint.safetensors import TensorEntry, layout
from trainerd.training.direct_file import BLOCK_BYTES, PIECE_BYTES
from trainerd.training.tensors import TORCH_DTYPES, stored_form

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.training.snapshot import Snapshot

Shapes = tuple[tuple[str, str, tuple[int, ...]], ...]
_RING_BYTES: Final = 16 << 20


class ImageLayout:
    """Where everything is in the image of one set of tensors. The same set has the same layout."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.header, self.entries = layout(shapes)
        self.size = len(self.header) + (self.entries[-1].end if self.entries else 0)

    @property
    def padded_size(self) -> int:
        """The size in whole blocks."""
        return -(-self.size // BLOCK_BYTES) * BLOCK_BYTES

    def offset_of(self, entry: TensorEntry) -> int:
        return len(self.header) + entry.begin


def stored_tensors(snapshot: Snapshot) -> tuple[dict[str, torch.Tensor], Shapes]:
    """Return the tensors in the form in which they lie in the file, and what the layout depends on."""
    stored = {name: stored_form(tensor) for name, tensor in snapshot.tensors.items()}
    shapes = tuple((name, dtype, tuple(tensor.shape)) for name, (tensor, dtype) in stored.items())
    return {name: tensor for name, (tensor, _) in stored.items()}, shapes


class Arena:
    """One warm host buffer.

    Invariants:
        Its memory only grows, and is faulted in when it does.
        Between `fill` and the end of the write of what was filled, nobody fills it again: the writer's business.
    """

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._bytes: torch.Tensor | None = None
        self._layout: ImageLayout | None = None
        self._views: list[torch.Tensor] = []
        self._order: list[str] = []

    def prepare(self, snapshot: Snapshot) -> ImageLayout:
        """Make room for a snapshot, and the views that its tensors are copied into."""
        _, shapes = stored_tensors(snapshot)
        return self._prepared(shapes)

    def fill(self, snapshot: Snapshot) -> ImageLayout:
        """Copy a snapshot's tensors in. When this returns, the live tensors may change."""
        stored, shapes = stored_tensors(snapshot)
        image = self._prepared(shapes)
        with torch.no_grad():
            torch._foreach_copy_(self._views, [stored[name] for name in self._order], non_blocking=False)
        return image

    def pieces(self, image: ImageLayout) -> Iterator[memoryview]:
        """Yield the image in the pieces in which it is written."""
        assert self._memory is not None
        view = memoryview(self._memory)
        for begin in range(0, image.padded_size, PIECE_BYTES):
            yield view[begin : min(begin + PIECE_BYTES, image.padded_size)]

    def _prepared(self, shapes: Shapes) -> ImageLayout:
        if self._layout is not None and self._layout.shapes == shapes:
            return self._layout
        image = ImageLayout(shapes)
        if self._memory is None or len(self._memory) < image.padded_size:
            self._memory = mmap.mmap(-1, image.padded_size)
            self._bytes = torch.frombuffer(self._memory, dtype=torch.uint8)
            self._bytes.zero_()  # faults every page in, without the interpreter lock
        assert self._bytes is not None
        self._memory[: len(image.header)] = image.header
        filled = [entry for entry in image.entries if entry.end > entry.begin]
        self._order = [entry.name for entry in filled]
        self._views = [
            self._bytes[image.offset_of(entry) : image.offset_of(entry) + entry.end - entry.begin]
            .view(TORCH_DTYPES[entry.dtype])
            .view(entry.shape)
            for entry in filled
        ]
        self._layout = image
        return image


def streamed(snapshot: Snapshot) -> tuple[ImageLayout, Iterator[memoryview]]:
    """Return the layout of a snapshot and its image in pieces, copied one by one through a small buffer."""
    stored, shapes = stored_tensors(snapshot)
    image = ImageLayout(shapes)
    return image, _streamed_pieces(stored, image)


def _streamed_pieces(stored: dict[str, torch.Tensor], image: ImageLayout) -> Iterator[memoryview]:
    memory = mmap.mmap(-1, _RING_BYTES)
    buffer, view = torch.frombuffer(memory, dtype=torch.uint8), memoryview(memory)
    filled = 0
    for source in _flat_bytes(stored, image):
        begin = 0
        while begin < len(source):
            count = min(len(source) - begin, _RING_BYTES - filled)
            buffer[filled : filled + count] = source[begin : begin + count]
            begin, filled = begin + count, filled + count
            if filled == _RING_BYTES:
                yield view
                filled = 0
    if filled:
        yield view[: -(-filled // BLOCK_BYTES) * BLOCK_BYTES]


def _flat_bytes(stored: dict[str, torch.Tensor], image: ImageLayout) -> Iterator[torch.Tensor]:
    yield torch.frombuffer(bytearray(image.header), dtype=torch.uint8)
    for entry in image.entries:
        if entry.end > entry.begin:
            yield stored[entry.name].detach().cpu().contiguous().view(-1).view(torch.uint8)
