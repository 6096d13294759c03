"""Large host memory that can be page-locked for direct transfers from CUDA devices.

Invariants:
    The driver's registration ends before the memory is freed, whatever frees it: `release`, a larger buffer
    in its place, the garbage collector or the end of the interpreter. Otherwise the next memory at the same
    address would be mapped, for the driver, to the old physical pages: copies would go there, and zeros would
    be saved. It ends only when no copy into the memory is on its way.
    A refused registration leaves no error behind; `pin` returns False, and copies are then complete when they
    return. A forked child has neither the memory nor a usable driver, and touches neither.
"""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import weakref
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.host_memory import address_of, fault_in, host_memory_of

if TYPE_CHECKING:
    from trainerd.training.writing.device_copy import Runtime, Transfer


class _Registration:
    """Page-locking of one region of memory, undone once."""

    def __init__(self, runtime: Runtime, address: int) -> None:
        self._runtime = runtime
        self._address = address
        self._pid = os.getpid()
        self._is_ended = False
        self.transfer: Transfer | None = None
        _registrations.add(self)

    def end(self) -> None:
        if self._is_ended or os.getpid() != self._pid:
            return
        self._is_ended = True
        if self.transfer is not None:
            with contextlib.suppress(RuntimeError):  # the device is lost, and nothing is on its way any more
                self.transfer.wait()
        if self._runtime.unregister(self._address) != 0:
            self._runtime.clear_error()


_registrations: Final[weakref.WeakSet[_Registration]] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """End what is left when the interpreter ends.

    It frees memory in no particular order, or not at all.
    """
    for registration in tuple(_registrations):
        registration.end()


class _Region(mmap.mmap):
    """Memory that ends its registration before the system takes it back.

    `weakref.finalize` would not do: `mmap` clears its weak references after the memory is unmapped.
    """

    registration: _Registration | None = None

    def __del__(self) -> None:
        if self.registration is not None:
            self.registration.end()


class HostBuffer:
    """Memory of at least `size` bytes, zeroed and present.

    Args:
        size: In bytes, rounded up to pages.
        runtime: Of the devices that copy into it.

    Raises:
        OSError: There is not so much memory.
    """

    def __init__(self, size: int, runtime: Runtime) -> None:
        self._region = host_memory_of(_Region, size)
        self._runtime = runtime
        self._is_refused = False
        fault_in(self._region)

    def __len__(self) -> int:
        return len(self._region)

    @property
    def memory(self) -> mmap.mmap:
        """The memory itself."""
        return self._region

    @property
    def is_pinned(self) -> bool:
        """Whether it is page-locked."""
        return self._region.registration is not None

    def pin(self) -> bool:
        """Page-lock it, unless it is already or the driver has refused that once.

        Return whether it is page-locked.
        """
        if not self.is_pinned and not self._is_refused:
            address = address_of(self._region)
            if self._runtime.register(address, len(self._region)) == 0:
                self._region.registration = _Registration(self._runtime, address)
            else:
                self._runtime.clear_error()
                self._is_refused = True
        return self.is_pinned

    def unpin(self) -> None:
        """Wait for copies on their way, and end the page-locking for good."""
        self._is_refused = True
        if self._region.registration is not None:
            self._region.registration.end()
            self._region.registration = None

    def expect(self, transfer: Transfer) -> None:
        """Note a transfer into this memory.

        It is waited for before the memory is used otherwise, or freed.
        """
        if self._region.registration is not None:
            self._region.registration.transfer = transfer

    def settle(self) -> None:
        """Wait for the last transfer noted, if any."""
        registration = self._region.registration
        if registration is not None and registration.transfer is not None:
            registration.transfer.wait()
            registration.transfer = None
