"""Copies from CUDA devices into host memory, on their own stream, each with a checksum from the device.

The processor does not wait for copies into page-locked memory. Where the device has room, the tensors are
gathered in flat memory there first (`grouped_copy`), and what the loop launches next on its own stream waits,
on the device, for that alone; otherwise it waits until its tensors are on the host. Either way the values are
those of the call, whatever the loop does next.

A digest of host memory proves what was written, not that it is what the device held. So what is copied is
summed on the device in the same stream, and the sums are compared with those of what arrived (`damaged`).
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import torch

from trainerd.errors import DeviceCopyError
from trainerd.training.writing.capture_mode import ignore_captures_of_others
from trainerd.training.writing.checksum import checksum_of, word_bytes_of, words_of
from trainerd.training.writing.grouped_copy import Gathered, Run, damaged_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

COPIES_MAX: Final = 2
"""How often one tensor is copied before a save gives up."""
SPARE_BYTES: Final = 1 << 30
"""So much memory of a device is left to the program when its tensors are gathered there."""
NAMES_MAX: Final = 3
"""How many tensors an error message names."""


class Copy(NamedTuple):
    """One tensor to be copied.

    Attributes:
        name: Name of the tensor in the checkpoint.
        target: Host tensor of the same dtype and shape, contiguous.
        source: Device tensor.
    """

    name: str
    target: torch.Tensor
    source: torch.Tensor


class Checksum(NamedTuple):
    """Checksum of one tensor on its device.

    Attributes:
        word_bytes: Size of the words that were summed, in bytes: 1, 2, 4 or 8.
        total: Sum of the words, modulo 2**64.
    """

    word_bytes: int
    total: int


class Transfer(Protocol):
    """Copies on their way from devices into host memory.

    It refers to none of that memory: the memory refers to it, and a tensor in the circle would keep both for
    ever.
    """

    def wait(self) -> None:
        """Return when all have arrived. May be called from any thread, and again."""
        ...

    def checksums(self) -> Mapping[str, Checksum]:
        """Return what the device held, by tensor name, once `wait` has returned."""
        ...

    def blocks(self) -> Sequence[tuple[Run, Sequence[int]]]:
        """Return the sums of the blocks of tensors that were moved together, once `wait` has returned."""
        ...


class Runtime(Protocol):
    """The part of the CUDA runtime that saves use. Codes are those of ``cudaError_t``; 0 is success."""

    def is_on_device(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor's memory is a device's."""
        ...

    def register(self, address: int, size: int) -> int:
        """Page-lock host memory for direct transfers, as ``cudaHostRegister`` does."""
        ...

    def unregister(self, address: int) -> int:
        """Undo `register` for the memory at that address."""
        ...

    def clear_error(self) -> None:
        """Clear the error that a refused call leaves in this thread for the next kernel launch to raise."""
        ...

    def ignore_captures_of_others(self) -> None:
        """Let this thread wait and copy while another thread captures a CUDA graph: else both fail."""
        ...

    def start_copies(self, copies: Sequence[Copy], *, is_pinned: bool) -> Transfer:
        """Start copies. Into memory that is not page-locked they are complete when this returns."""
        ...

    def synchronize(self, tensors: Iterable[torch.Tensor]) -> None:
        """Wait for all that was launched on the devices of these tensors, on whatever stream.

        Another thread may read the values then: its current stream is the default one, not the loop's.
        """
        ...

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy of a contiguous device tensor in memory of the host."""
        ...


def damaged(transfer: Transfer, targets: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors whose bytes in host memory are not those that the device held.

    Args:
        transfer: Copies that have arrived.
        targets: Where to, by tensor name; others may be among them.
    """
    return [
        name
        for name, (word_bytes, total) in transfer.checksums().items()
        if checksum_of(targets[name], word_bytes) != total
    ] + [name for run, sums in transfer.blocks() for name in damaged_in(run, sums, targets)]


class CudaRuntime:
    """The real runtime, through torch."""

    def is_on_device(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor is on a CUDA device."""
        return (
            tensor.is_cuda
        )  # asked of every tensor of every save: a tenth of what the name of its device costs

    def register(self, address: int, size: int) -> int:
        """Call ``cudaHostRegister``."""
        return int(torch.cuda.cudart().cudaHostRegister(address, size, 0))  # type: ignore[no-untyped-call]

    def unregister(self, address: int) -> int:
        """Call ``cudaHostUnregister``."""
        return int(torch.cuda.cudart().cudaHostUnregister(address))  # type: ignore[no-untyped-call]

    def clear_error(self) -> None:
        """Launch a kernel: torch takes the pending error of the thread and raises it here, once.

        torch does not export ``cudaGetLastError``.
        """
        try:
            torch.zeros(1, device="cuda").add_(1)
        except RuntimeError:
            torch.zeros(1, device="cuda").add_(1)  # raises again only if the device itself is lost

    def ignore_captures_of_others(self) -> None:
        """Tell the driver to look at the captures of this thread alone."""
        ignore_captures_of_others()

    def start_copies(self, copies: Sequence[Copy], *, is_pinned: bool) -> Transfer:
        """Start copies on the side stream of each device, after what the current streams compute."""
        return _CudaTransfer(copies, is_pinned=is_pinned)

    def synchronize(self, tensors: Iterable[torch.Tensor]) -> None:
        """Synchronize the devices."""
        for device in {tensor.device for tensor in tensors if tensor.is_cuda}:
            torch.cuda.synchronize(device)

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy through memory of the driver."""
        return tensor.cpu()


CUDA = CudaRuntime()


def verified_on_host(tensor: torch.Tensor, name: str, runtime: Runtime) -> torch.Tensor:
    """Return a copy of a device tensor in host memory that was compared with what is on the device.

    Raises:
        DeviceCopyError: Two copies in a row arrived damaged.
    """
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    word_bytes = word_bytes_of(tensor)
    expected = int(words_of(tensor, word_bytes).sum(dtype=torch.int64))
    for _ in range(COPIES_MAX):
        copy = runtime.to_host(tensor)
        if checksum_of(copy, word_bytes) == expected:
            return copy
    raise damage_error([name])


def damage_error(names: Sequence[str]) -> DeviceCopyError:
    """Return the error for tensors that arrived damaged.

    Args:
        names: At least one.
    """
    shown = ", ".join(names[:NAMES_MAX]) + (
        f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    )
    return DeviceCopyError(
        f"not saved: {shown} arrived in host memory with other bytes than the device holds",
        hint="the memory of the device or the host, or the bus between them, may be faulty: look for "
        "ECC and Xid "
        "errors with `nvidia-smi -q -d ECC` and `dmesg`",
    )


class _CudaTransfer:
    def __init__(self, copies: Sequence[Copy], *, is_pinned: bool) -> None:
        self._on_devices = [
            _OnDevice(device, [copy for copy in copies if copy.source.device == device], is_pinned=is_pinned)
            for device in dict.fromkeys(copy.source.device for copy in copies)
        ]

    def wait(self) -> None:
        for part in self._on_devices:
            part.event.synchronize()

    def checksums(self) -> dict[str, Checksum]:
        return {name: checksum for part in self._on_devices for name, checksum in part.checksums().items()}

    def blocks(self) -> list[tuple[Run, list[int]]]:
        return [each for part in self._on_devices for each in part.blocks()]


class _OnDevice:
    """The copies from one device."""

    def __init__(self, device: torch.device, copies: Sequence[Copy], *, is_pinned: bool) -> None:
        loop, self._side = torch.cuda.current_stream(device), _side_stream(device)
        self._names: list[str] = []
        self._word_bytes: list[int] = []
        self._runs: list[Run] = []
        self._side.wait_stream(loop)  # what computes these values was launched before
        try:
            with torch.cuda.stream(self._side), torch.no_grad():
                gathered = _gathered(device, copies) if is_pinned else None
                if gathered is not None:
                    for copy in copies:
                        copy.source.record_stream(self._side)
                    loop.wait_event(self._side.record_event())
                    self._runs = gathered.runs
                    block_sums = gathered.move(is_pinned=is_pinned)
                    self._counts = [len(sums) for sums in block_sums]
                    self._sums = torch.cat(block_sums)
                else:
                    self._names = [copy.name for copy in copies]
                    self._sums = torch.empty(len(copies), dtype=torch.int64, device=device)
                    for slot, (_, target, source) in enumerate(copies):
                        self._start(slot, target, source, is_pinned=is_pinned)
        except BaseException:
            self._side.synchronize()  # nothing is on its way into memory that is given up now
            raise
        self.event: Any = self._side.record_event()
        if gathered is None:
            loop.wait_event(self.event)

    def _start(self, slot: int, target: torch.Tensor, source: torch.Tensor, *, is_pinned: bool) -> None:
        target.copy_(source, non_blocking=is_pinned)
        word_bytes = word_bytes_of(source)
        self._word_bytes.append(word_bytes)
        torch.sum(words_of(source, word_bytes), dim=0, dtype=torch.int64, out=self._sums[slot])
        source.record_stream(self._side)  # its memory is not given away before both have read it

    def checksums(self) -> dict[str, Checksum]:
        if self._runs:
            return {}
        with torch.cuda.stream(self._side):
            totals = self._sums.tolist()
        return dict(zip(self._names, map(Checksum, self._word_bytes, totals), strict=True))

    def blocks(self) -> list[tuple[Run, list[int]]]:
        if not self._runs:
            return []
        with torch.cuda.stream(self._side):
            sums = iter(self._sums.tolist())
        return [
            (run, list(itertools.islice(sums, count)))
            for run, count in zip(self._runs, self._counts, strict=True)
        ]


def _gathered(device: torch.device, copies: Sequence[Copy]) -> Gathered | None:
    """Gather the tensors on their device, in the current stream; None without room or elements."""
    needed = sum(copy.source.nbytes for copy in copies)
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if not 0 < needed <= free + unused - SPARE_BYTES:
        return None
    try:
        return Gathered(copies)
    except torch.OutOfMemoryError:
        return None


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
