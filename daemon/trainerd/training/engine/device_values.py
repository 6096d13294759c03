"""Single numbers on their way from a CUDA device: measurements that the loop has logged and not waited for.

A copy is queued on the stream that computes the value, so it takes the value of the call, whatever the loop
does to the tensor next. The processor does not wait: an event says when the number has arrived.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

Number = int | float


class Arrival(Protocol):
    """The arrival of numbers from a device."""

    def has_arrived(self) -> bool:
        """Return whether all are there, without waiting."""
        ...

    def wait(self) -> None:
        """Return when all are there. May be called from any thread, and again."""
        ...


class ValueBatch(Arrival, Protocol):
    """Numbers that are needed together: those of one row."""

    def add(self, tensor: torch.Tensor) -> Callable[[], Number]:
        """Start the copy of a tensor with one element; return the function that reads it once it is there."""
        ...


class ValueCopies(Protocol):
    """Copies of numbers from devices."""

    def is_on_device(self, value: object) -> bool:
        """Return whether to read a value would make the processor wait for a device."""
        ...

    def batch(self) -> ValueBatch:
        """Return an empty batch."""
        ...


class CudaValues:
    """Copies from CUDA devices into page-locked memory, which is used again."""

    def __init__(self) -> None:
        self._free: dict[torch.dtype, list[torch.Tensor]] = defaultdict(list)

    def is_on_device(self, value: object) -> bool:
        return isinstance(value, torch.Tensor) and value.is_cuda

    def batch(self) -> ValueBatch:
        return _CudaBatch(self._free)


class _CudaBatch:
    def __init__(self, free: dict[torch.dtype, list[torch.Tensor]]) -> None:
        self._free = free
        self._events: dict[Any, Any] = {}

    def add(self, tensor: torch.Tensor) -> Callable[[], Number]:
        free = self._free[tensor.dtype]
        place = free.pop() if free else _page_locked(tensor.dtype)
        with torch.no_grad(), torch.cuda.device(tensor.device):
            place.copy_(tensor.detach().reshape(()), non_blocking=True)
            stream = torch.cuda.current_stream()
            event = self._events.get(stream)
            if event is None:
                event = self._events[stream] = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(stream)

        @functools.cache  # read once: the memory is another number's afterwards
        def read() -> Number:
            number: Number = place.item()
            free.append(place)
            return number

        return read

    def has_arrived(self) -> bool:
        return all(event.query() for event in self._events.values())

    def wait(self) -> None:
        for event in self._events.values():
            event.synchronize()


def _page_locked(dtype: torch.dtype) -> torch.Tensor:
    """Return memory for one number. Where none can be page-locked, the copies wait for the device."""
    try:
        return torch.empty((), dtype=dtype, pin_memory=True)
    except RuntimeError:
        return torch.empty((), dtype=dtype)


CUDA_VALUES: Final = CudaValues()
