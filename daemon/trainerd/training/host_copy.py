"""Copies of live tensors into host memory, as fast as the machine allows just now.

There are two ways, and neither is always the faster one:

* torch's team of threads. Where cores are free it is as fast as one plain copy of all the bytes. Threads of our own
  would not be: after a step those of the team spin for some milliseconds, and hold the core. But a team waits for
  all its threads at every large tensor; with six other busy threads on two cores, 300 tensors took 213 to 387 ms.
* This thread alone, memory to memory. It waits for nobody: 51 to 63 ms there, and 16 against 11 ms on a free machine.

`FasterWay` finds out which it is, and looks again now and then.
"""

from __future__ import annotations

import ctypes
from typing import Final, Literal

import torch

HOLDING_BYTES_MAX: Final = 1 << 20
"""Moves up to this size keep the interpreter lock: to give it up for each would cost up to 5 ms each, if another
thread is busy in Python."""

TRIAL_DISTANCE_MAX: Final = 64
"""The slower way is tried again after 1, 2, 4, … copies, and at the latest after so many."""

Way = Literal["team", "alone"]

_Memmove = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_HoldingMemmove = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_ADDRESS: Final = ctypes.cast(ctypes.CDLL(None).memmove, ctypes.c_void_p).value
assert _ADDRESS is not None
_memmove: Final = _Memmove(_ADDRESS)
_memmove_holding: Final = _HoldingMemmove(_ADDRESS)


class FasterWay:
    """Which way to copy is the faster one here, by what each took when it was last used. Reads no clock."""

    def __init__(self) -> None:
        self._s_per_byte: dict[Way, float] = {}
        self._distance = 1
        self._until_trial = 1

    def next(self) -> Way:
        """Return the way to use for the next copy."""
        if "team" not in self._s_per_byte:
            return "team"
        if "alone" not in self._s_per_byte:
            return "alone"
        return self._slower() if self._until_trial <= 0 else self._faster()

    def took(self, way: Way, size: int, seconds: float) -> None:
        """Note what a copy of `size` bytes took."""
        if len(self._s_per_byte) < 2:
            self._s_per_byte[way] = seconds / max(size, 1)
            return
        former, was_trial = self._faster(), self._until_trial <= 0
        self._s_per_byte[way] = seconds / max(size, 1)
        if was_trial:
            self._distance = min(2 * self._distance, TRIAL_DISTANCE_MAX) if self._faster() == former else 1
            self._until_trial = self._distance
        else:
            self._until_trial -= 1

    def _faster(self) -> Way:
        return "team" if self._s_per_byte["team"] <= self._s_per_byte["alone"] else "alone"

    def _slower(self) -> Way:
        return "alone" if self._faster() == "team" else "team"


def copy_all(targets: list[torch.Tensor], sources: list[torch.Tensor], way: Way) -> None:
    """Copy every source into its target, of the same dtype and shape, and return when all is copied."""
    with torch.no_grad():
        if way == "team":
            torch._foreach_copy_(targets, sources)
            return
        for target, source in zip(targets, sources, strict=True):
            if is_plain_memory(source):
                move(target.data_ptr(), source.data_ptr(), source.numel() * source.element_size())
            else:
                target.copy_(source)


def is_plain_memory(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's values are the bytes at its address, one after the other."""
    return (
        tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def move(target: int, source: int, size: int) -> None:
    """Copy `size` bytes from one address to another, in this thread."""
    if size <= HOLDING_BYTES_MAX:
        _memmove_holding(target, source, size)
    else:
        _memmove(target, source, size)
