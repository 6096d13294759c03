"""Copies of live tensors into host memory, as fast as the machine allows just now.

There are two ways, and neither is always the faster one:

* torch's team of threads. Where cores are free it is as fast as one plain copy of all the bytes. Threads of
  our own would not be: after a step those of the team spin for some milliseconds, and hold the core. But a
  team waits for all its threads at every large tensor; with six other busy threads on two cores, 300 tensors
  took 213 to 387 ms.
* This thread alone, memory to memory. It waits for no thread: 51 to 63 ms there, and 16 against 11 ms on a
  free machine.

`FasterWay` finds out which it is, and looks again when that may have changed.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections import deque
from typing import Final, Literal

import torch

HOLDING_BYTES_MAX: Final = 1 << 20
"""Moves up to this size keep the interpreter lock: to give it up for each would cost up to 5 ms each, if
another thread is busy in Python."""

NEWS: Final = 1.5
"""The other way is tried when the one in use has become so many times slower, or faster: the machine has
changed."""
COMPARISON_DISTANCE_MAX: Final = 64
"""It is tried after so many copies at the latest."""
RECENT: Final = 3
"""Of so many copies the quickest counts: one alone may have met anything."""

Way = Literal["team", "alone"]

_Memmove = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_HoldingMemmove = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_ADDRESS: Final = ctypes.cast(ctypes.CDLL(None).memmove, ctypes.c_void_p).value
assert _ADDRESS is not None
_memmove: Final = _Memmove(_ADDRESS)
_memmove_holding: Final = _HoldingMemmove(_ADDRESS)


class FasterWay:
    """Which way to copy is the faster one here, by what the copies took. Reads no clock.

    A copy the other way costs the loop half as much again, or several times as much: none is made for
    curiosity.
    """

    _OPENING: Final[tuple[Way, ...]] = ("team", "team", "team", "alone")
    """The first copy writes pages that were never touched; its time is discarded. The team is tried more
    than once: a team that sleeps, as it does where no step came just before, takes twice as long."""

    def __init__(self) -> None:
        self._recent: dict[Way, deque[float]] = {"team": deque(maxlen=RECENT), "alone": deque(maxlen=RECENT)}
        self._opened = 0
        self._in_use: Way = "team"
        self._compared_at = 0.0
        self._since_comparison = 0
        self._tries_other = False

    def next(self) -> Way:
        """Return the way to use for the next copy."""
        if self._opened < len(self._OPENING):
            return self._OPENING[self._opened]
        return _other(self._in_use) if self._tries_other else self._in_use

    def took(self, way: Way, size: int, seconds: float) -> None:
        """Note what a copy of `size` bytes took, made the way that `next` said."""
        if self._tries_other:
            self._recent[way].clear()  # of another time
        self._recent[way].append(seconds / max(size, 1))
        if self._opened < len(self._OPENING):
            self._opened += 1
            if self._opened == 1:
                self._recent[way].clear()
            if self._opened == len(self._OPENING):
                self._compare()
        elif self._tries_other:
            self._compare()
        else:
            self._since_comparison += 1
            change = min(self._recent[way]) / max(self._compared_at, 1e-15)
            is_news = not 1 / NEWS < change < NEWS
            self._tries_other = is_news or self._since_comparison >= COMPARISON_DISTANCE_MAX

    def _compare(self) -> None:
        team, alone = (min(self._recent[way]) for way in ("team", "alone"))
        self._in_use = "team" if team <= alone else "alone"
        self._compared_at = min(team, alone)
        self._since_comparison = 0
        self._tries_other = False


def _other(way: Way) -> Way:
    return "alone" if way == "team" else "team"


def copy_all(targets: list[torch.Tensor], sources: list[torch.Tensor], way: Way) -> None:
    """Copy every source into its target, of the same dtype and shape, and return when all is copied."""
    with torch.no_grad():
        if way == "team":
            copy_together(targets, sources)
            return
        for target, source in zip(targets, sources, strict=True):
            if is_plain_memory(source):
                move(target.data_ptr(), source.data_ptr(), source.numel() * source.element_size())
            else:
                target.copy_(source)


def copy_together(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copy every source into its target: by one call, if torch has its private function for that."""
    if (all_at_once := getattr(torch, "_foreach_copy_", None)) is not None:
        with contextlib.suppress(RuntimeError):  # not for this dtype or layout
            all_at_once(targets, sources)
            return
    for target, source in zip(targets, sources, strict=True):  # the same, with a call for each
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
