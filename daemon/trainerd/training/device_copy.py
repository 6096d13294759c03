"""Copies from CUDA devices into page-locked host memory, on a stream of their own.

The processor does not wait for them. What the loop launches next on its own stream waits, on the device, until its
tensors are copied: the values are those of the call, whatever the loop does next.

No machine with a CUDA device has run this yet; its tests are marked `gpu`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Pair = tuple[torch.Tensor, torch.Tensor]


def is_on_cuda(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's memory is a CUDA device's."""
    return tensor.is_cuda  # asked of every tensor of every save: a tenth of what the name of its device costs


def copy_from_cuda(pairs: Sequence[Pair]) -> Callable[[], None]:
    """Begin to copy device tensors; return what waits until all have arrived.

    Args:
        pairs: Host tensor and device tensor of each. Into page-locked memory the copy is asynchronous; into any
            other it is done at the return.
    """
    events: list[Any] = []
    for device in dict.fromkeys(source.device for _, source in pairs):
        loop, side = torch.cuda.current_stream(device), _side_stream(device)
        side.wait_stream(loop)  # what computes these values was launched before
        with torch.cuda.stream(side):
            for target, source in pairs:
                if source.device == device:
                    target.copy_(source, non_blocking=True)
                    source.record_stream(side)  # its memory is not given away before the copy is done
        event = side.record_event()
        loop.wait_event(event)
        events.append(event)

    def wait() -> None:
        for event in events:
            event.synchronize()

    return wait


def lock_pages(address: int, size: int) -> bool:
    """Lock host memory for direct transfers; return whether the driver took it. It may refuse: a limit, a lack."""
    return bool(torch.cuda.cudart().cudaHostRegister(address, size, 0) == 0)  # type: ignore[no-untyped-call]


def unlock_pages(address: int) -> None:
    """Take back `lock_pages` of the memory at that address."""
    torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
