"""The image of a rank's tensor file in host memory: what the file will be, byte for byte.

`Arena` is one warm buffer that every save copies into: the copy is all that a periodic save costs the loop.
The buffer is kept, and can be faulted in before it is first needed (see `host_memory`). What has been copied
can be written while the rest is being copied.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from trainerd.checkpoint.direct_io import BLOCK_BYTES
from trainerd.checkpoint.safetensors import TensorEntry, layout
from trainerd.training.state.tensor_dtypes import TORCH_DTYPES, stored_form
from trainerd.training.writing.device_copy import CUDA, Copy, Runtime, Transfer, damaged
from trainerd.training.writing.direct_file import PIECE_BYTES, AbandonedError
from trainerd.training.writing.host_buffer import HostBuffer
from trainerd.training.writing.host_copy import FasterWay, Way, copy_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.training.state.snapshot import Snapshot

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
    # What is on a device comes first, so that it is moved in few runs. Tensors on the CPU keep their order.
    for name, tensor in sorted(snapshot.tensors.items(), key=lambda item: item[1].device.type == "cpu"):
        form, dtype = stored_form(tensor)
        stored[name] = form
        shapes.append((name, dtype, form.shape))
    return stored, tuple(shapes)


class _Group(NamedTuple):
    """Tensors that follow one another in the image, copied by one call.

    Attributes:
        names: Names of the tensors, in the order of the image.
        views: Where they go in the arena.
        end: Where the last of them ends in the image, in bytes.
    """

    names: list[str]
    views: list[torch.Tensor]
    end: int


class Filling:
    """One snapshot on its way into the arena. Made by `Arena.begin`.

    One thread calls `copy`; meanwhile another thread may write what has arrived already, piece by piece.
    """

    def __init__(
        self, image: ImageLayout, buffer: HostBuffer, groups: list[_Group], runtime: Runtime
    ) -> None:
        self.image = image
        self._buffer = buffer
        self._memory = memoryview(buffer.memory)
        self._groups = groups
        self._runtime = runtime
        self._arrived_bytes = 0
        self._has_failed = False
        self._changed = threading.Condition()
        self._transfer: Transfer | None = None

    def copy(self, stored: dict[str, torch.Tensor], way: Way) -> None:
        """Copy all tensors. When this returns, they may change."""
        try:
            self._start_on_devices(stored)
            for names, views, end in self._groups:
                sources = [stored[name] for name in names]
                if any(map(self._runtime.is_on_device, sources)):
                    pairs = [
                        pair
                        for pair in zip(views, sources, strict=True)
                        if not self._runtime.is_on_device(pair[1])
                    ]
                    views, sources = [view for view, _ in pairs], [source for _, source in pairs]  # noqa: PLW2901 - what is left to copy
                if sources:
                    copy_all(views, sources, way)
                self._tell(arrived_bytes=end)
            self._tell(arrived_bytes=self.image.padded_size)
        except BaseException:
            self.give_up()
            raise

    def give_up(self) -> None:
        """Tell the threads that wait for what has not arrived that it never will."""
        self._tell(has_failed=True)

    def _start_on_devices(self, stored: dict[str, torch.Tensor]) -> None:
        copies = [
            Copy(name, view, stored[name])
            for names, views, _ in self._groups
            for name, view in zip(names, views, strict=True)
            if self._runtime.is_on_device(stored[name])
        ]
        if copies:
            self._transfer = self._runtime.start_copies(copies, is_pinned=self._buffer.is_pinned)
            self._buffer.expect(self._transfer)

    def _wait_for_devices(self) -> None:
        if self._transfer is not None:
            self._transfer.wait()

    def damaged(self) -> list[str]:
        """Return the names of device tensors that arrived with other bytes than the device held.

        Returns once all have arrived.
        """
        if self._transfer is None:
            return []
        targets = {
            name: view for names, views, _ in self._groups for name, view in zip(names, views, strict=True)
        }
        return damaged(self._transfer, targets)

    def pieces(self) -> Iterator[memoryview]:
        """Yield the image in the pieces in which it is written, each as soon as it has arrived.

        Raises:
            AbandonedError: `copy` failed, and has said why.
        """
        begin = 0
        for end in piece_ends(self.image.padded_size):
            self._wait_for(end)
            self._wait_for_devices()
            yield self._memory[begin:end]
            begin = end

    def wait(self) -> None:
        """Wait until all has arrived.

        Raises:
            AbandonedError: `copy` failed, and has said why.
        """
        self._wait_for(self.image.padded_size)

    def _wait_for(self, arrived_bytes: int) -> None:
        with self._changed:
            while self._arrived_bytes < arrived_bytes and not self._has_failed:
                self._changed.wait()
        if self._has_failed:
            raise AbandonedError

    def _tell(self, *, arrived_bytes: int = 0, has_failed: bool = False) -> None:
        with self._changed:
            self._arrived_bytes = max(arrived_bytes, self._arrived_bytes)
            self._has_failed |= has_failed
            self._changed.notify_all()


class Arena:
    """One warm host buffer.

    Args:
        runtime: Of the devices on which tensors may be.

    Invariants:
        Its memory only grows. A larger one replaces it, so there is never more than one.
        Between `begin` and the end of the write of what was filled, no thread fills it again: the writer
        ensures it. The values are those at the call of `begin`, whatever the caller does to the tensors once
        all are copied.
    """

    def __init__(self, runtime: Runtime = CUDA) -> None:
        self._runtime = runtime
        self._buffer: HostBuffer | None = None
        self._is_distrusted = False
        self._layout: ImageLayout | None = None
        self._groups: list[_Group] = []
        self._faster_way = FasterWay()

    def prepare(self, snapshot: Snapshot) -> None:
        """Make room for snapshots of these shapes, in pages that are there already.

        Reads no tensor's values.
        """
        stored, shapes = stored_tensors(snapshot)
        self._lay_out(shapes)
        self._pin_for(stored)

    def begin(self, snapshot: Snapshot) -> tuple[Filling, Callable[[], None]]:
        """Return the filling of a snapshot, for the thread that writes it, and the function that copies."""
        stored, shapes = stored_tensors(snapshot)
        if self._buffer is not None:
            self._buffer.settle()  # a write that was called off did not wait for its copies
        image = self._layout
        if image is None or image.shapes != shapes:
            image = self._lay_out(shapes)
        self._pin_for(stored)
        assert self._buffer is not None
        filling = Filling(image, self._buffer, self._groups, self._runtime)

        def copy() -> None:
            way, began_s = self._faster_way.next(), time.perf_counter()
            filling.copy(stored, way)
            self._faster_way.took(way, image.size, time.perf_counter() - began_s)

        return filling, copy

    def fill(self, snapshot: Snapshot) -> Filling:
        """Copy a snapshot's tensors in. When this returns, the live tensors may change."""
        filling, copy = self.begin(snapshot)
        copy()
        return filling

    @property
    def is_distrusted(self) -> bool:
        """Whether copies are blocking and into memory that is not page-locked, from `distrust` on."""
        return self._is_distrusted

    def distrust(self) -> None:
        """Make all later copies blocking ones, after a transfer that arrived damaged."""
        self._is_distrusted = True
        self.release()

    def release(self) -> None:
        """Give the memory back, once no copy into it is on its way; the next snapshot gets new memory."""
        if self._buffer is not None:
            self._buffer.unpin()
        self._buffer, self._layout, self._groups = None, None, []

    def _lay_out(self, shapes: Shapes) -> ImageLayout:
        image = ImageLayout(shapes)
        if self._buffer is None or len(self._buffer) < image.padded_size:
            self.release()  # before more is asked for: there is never twice the state
            self._buffer = HostBuffer(image.padded_size, self._runtime)
        memory = self._buffer.memory
        memory[: len(image.header)] = image.header
        octets = torch.frombuffer(memory, dtype=torch.uint8)
        self._groups = _groups(image, octets)
        self._layout = image
        return image

    def _pin_for(self, stored: dict[str, torch.Tensor]) -> None:
        if not self._is_distrusted and any(map(self._runtime.is_on_device, stored.values())):
            assert self._buffer is not None
            self._buffer.pin()


def piece_ends(padded_size: int) -> list[int]:
    """Return where the pieces of an image end. The first one is smaller: the disk need not wait for long."""
    return [*range(FIRST_PIECE_BYTES, padded_size, PIECE_BYTES), padded_size]


def _groups(image: ImageLayout, octets: torch.Tensor) -> list[_Group]:
    """Return the tensors of an image in as many groups as it has pieces.

    Each piece waits for one group at most.
    """
    groups: list[_Group] = []
    ends = iter(piece_ends(image.padded_size))
    end, names, views = next(ends), [], []
    for entry in image.entries:
        begin = image.offset_of(entry)
        stop = begin + entry.end - entry.begin
        names.append(entry.name)
        views.append(octets[begin:stop].view(TORCH_DTYPES[entry.dtype]).view(entry.shape))
        if stop >= end:
            groups.append(_Group(names, views, stop))
            names, views = [], []
            end = next((later for later in ends if later > stop), image.padded_size)
    groups.append(_Group(names, views, image.size))
    return groups
