"""A CUDA runtime without a device, which behaves as the driver does where that has cost a checkpoint.

Like the driver, it refuses to register memory that overlaps with a registration, and leaves an error for the
next kernel launch of the thread to raise; it forgets a registration only when it is told to, so that copies
to an address whose memory was freed and mapped again go to the old pages, and the new memory keeps its zeros;
copies into page-locked memory arrive later, with the values of the call; while a graph is captured it refuses
every thread that has not asked to be let through what makes a thread wait.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections.abc import Iterable, Sequence

import torch

from trainerd.checkpoint.host_memory import address_of
from trainerd.training.state.live_objects import live_instances
from trainerd.training.writing.checksum import word_bytes_of, words_of
from trainerd.training.writing.device_copy import Checksum, Copy
from trainerd.training.writing.grouped_copy import Gathered, Run

ALREADY_REGISTERED = 712
NOT_REGISTERED = 713
NO_MEMORY = 2


class FakeCuda:
    """See the module.

    Attributes:
        is_gathering: Whether there is room on the device to gather tensors before they are moved.
        registrations: Size and memory of each registration, by address.
        refusals: How many further registrations are refused.
        damages: How many further tensors arrive damaged.
        blocking_copies: How many tensors were copied into memory that was not page-locked.
        is_capturing: Whether the thread of the script captures a graph.
    """

    def __init__(self, *, is_gathering: bool = False) -> None:
        self.is_gathering = is_gathering
        self.registrations: dict[int, tuple[int, weakref.ref[mmap.mmap]]] = {}
        self.refusals = 0
        self.damages = 0
        self.blocking_copies = 0
        self.is_capturing = False
        self._unhindered: set[int] = set()
        self._error = 0
        self._tensors: dict[int, torch.Tensor] = {}

    # ------------------------------------------------------------------ what a script does

    def tensor(self, values: torch.Tensor) -> torch.Tensor:
        """Return a tensor that is taken to be on the device."""
        copy = values.clone()
        self._tensors[copy.untyped_storage().data_ptr()] = copy
        return copy

    def launch(self) -> None:
        """Launch a kernel: raises the pending error of an earlier call."""
        error, self._error = self._error, 0
        if error:
            raise RuntimeError(f"CUDA error {error}")

    # ------------------------------------------------------------------ what the driver does

    def leaked(self) -> list[int]:
        """Return the addresses that are registered though their memory is gone."""
        return [address for address, (_, memory) in self.registrations.items() if memory() is None]

    def is_on_device(self, tensor: torch.Tensor) -> bool:
        return tensor.layout is torch.strided and tensor.untyped_storage().data_ptr() in self._tensors

    def register(self, address: int, size: int) -> int:
        self.check_capture()
        if self.refusals:
            self.refusals -= 1
            return self._fail(NO_MEMORY)
        if any(
            begin < address + size and address < begin + length
            for begin, (length, _) in self.registrations.items()
        ):
            return self._fail(ALREADY_REGISTERED)
        self.registrations[address] = size, weakref.ref(_memory_at(address))
        return 0

    def unregister(self, address: int) -> int:
        if address not in self.registrations:
            return self._fail(NOT_REGISTERED)
        assert self.registrations[address][1]() is not None, "the memory was freed before"
        del self.registrations[address]
        return 0

    def clear_error(self) -> None:
        self._error = 0

    def ignore_captures_of_others(self) -> None:
        self._unhindered.add(threading.get_ident())

    def check_capture(self) -> None:
        """Fail as each call does that may wait."""
        if self.is_capturing and threading.get_ident() not in self._unhindered:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    def start_copies(self, copies: Sequence[Copy], *, is_pinned: bool) -> FakeTransfer | FakeGatheredTransfer:
        if is_pinned and self.is_gathering and any(copy.source.numel() for copy in copies):
            return FakeGatheredTransfer(self, copies)
        transfer = FakeTransfer(self, [copy._replace(source=copy.source.clone()) for copy in copies])
        if not is_pinned:
            self.blocking_copies += len(copies)
            transfer.wait()
        return transfer

    def synchronize(self, tensors: Iterable[torch.Tensor]) -> None:
        pass

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        copy = torch.empty_like(tensor)
        self._arrive(copy, tensor)
        return copy

    def _fail(self, error: int) -> int:
        self._error = error
        return error

    def _arrive(self, target: torch.Tensor, source: torch.Tensor) -> None:
        address = target.data_ptr()
        for begin, (size, memory) in self.registrations.items():
            if begin <= address < begin + size and memory() is None:
                return  # into the physical pages that this address had once
        target.copy_(source)
        if self.damages and target.numel():
            self.damages -= 1
            target.view(-1).view(torch.uint8)[-1] ^= 1


class FakeTransfer:
    """Copies that arrive when they are waited for."""

    def __init__(self, cuda: FakeCuda, copies: list[Copy]) -> None:
        self._cuda = cuda
        self._pending = copies
        self._checksums = {}
        for name, _, source in copies:
            word_bytes = word_bytes_of(source)
            self._checksums[name] = Checksum(
                word_bytes, int(words_of(source, word_bytes).sum(dtype=torch.int64))
            )

    @property
    def has_arrived(self) -> bool:
        return not self._pending

    def wait(self) -> None:
        self._cuda.check_capture()
        copies, self._pending = self._pending, []
        for _, target, source in copies:
            self._cuda._arrive(target, source)

    def checksums(self) -> dict[str, Checksum]:
        self._cuda.check_capture()
        assert self.has_arrived, "nothing waited for the copies"
        return self._checksums

    def blocks(self) -> list[tuple[Run, list[int]]]:
        return []


class FakeGatheredTransfer:
    """Copies that were gathered at the call, and arrive when they are waited for."""

    def __init__(self, cuda: FakeCuda, copies: Sequence[Copy]) -> None:
        self._cuda = cuda
        self._gathered: Gathered | None = Gathered(copies)
        self._runs = self._gathered.runs
        self._pending = list(copies)
        self._sums: list[torch.Tensor] = []

    @property
    def has_arrived(self) -> bool:
        return self._gathered is None

    def wait(self) -> None:
        self._cuda.check_capture()
        if self._gathered is not None:
            self._sums = self._gathered.move(is_pinned=True)
            self._gathered = None
            for _, target, _ in self._pending:
                self._cuda._arrive(target, target.clone())
            self._pending = []

    def checksums(self) -> dict[str, Checksum]:
        return {}

    def blocks(self) -> list[tuple[Run, list[int]]]:
        self._cuda.check_capture()
        assert self.has_arrived, "nothing waited for the copies"
        return [(run, sums.tolist()) for run, sums in zip(self._runs, self._sums, strict=True)]


def _memory_at(address: int) -> mmap.mmap:
    """Return the object whose memory begins at an address: the driver knows pages, a fake must know their
    owner."""
    for candidate in live_instances(lambda kind: issubclass(kind, mmap.mmap)):
        if not candidate.closed and address_of(candidate) == address:
            return candidate
    raise AssertionError(f"no memory at {address:#x}")
