"""Copies of memory to memory, without torch's own copy.

torch starts a team of threads for every tensor and waits for all of them at a barrier. On a machine that is busy
with other things, a barrier waits for whoever was descheduled: measured with six runnable threads on two cores, a
model of 300 tensors took ten times as long as one copy of the same bytes. Here every thread gets its share of
the bytes at the beginning, and there is one wait at the end.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARE_BYTES_MIN: Final = 256 << 20
"""The share of one thread is not less: one core copies nearly as fast as the memory allows, and to wait for another
one may cost more."""

THREADS_MAX: Final = 8

Move = tuple[int, int, int]
"""Target address, source address, bytes."""

_Memmove = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_HoldingMemmove = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_ADDRESS: Final = ctypes.cast(ctypes.CDLL(None).memmove, ctypes.c_void_p).value
assert _ADDRESS is not None

_memmove: Final = _Memmove(_ADDRESS)

_memmove_holding: Final = _HoldingMemmove(_ADDRESS)
"""Keeps the interpreter lock, for small moves: to give it up for each would cost up to 5 ms each, if another thread
is busy in Python."""

HOLDING_BYTES_MAX: Final = 1 << 20


def is_plain_memory(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's values are the bytes at its address, one after the other."""
    return (
        tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def move_all(moves: Sequence[Move], *, threads: int | None = None) -> None:
    """Copy all, and return when all is copied.

    Args:
        moves: What to copy where; targets do not overlap.
        threads: How many to use; chosen by the size if not given.
    """
    if threads is None:
        threads = threads_for(sum(count for _, _, count in moves))
    if threads <= 1:
        _move(moves)
        return
    first, *others = shares(moves, threads)
    helpers = [
        threading.Thread(target=_move, args=(share,), name="trainerd-copy", daemon=True) for share in others
    ]
    for helper in helpers:
        helper.start()
    _move(first)
    for helper in helpers:
        helper.join()


def shares(moves: Sequence[Move], count: int) -> list[list[Move]]:
    """Divide moves into `count` shares of equal bytes, cutting those that lie across a border."""
    total = sum(size for _, _, size in moves)
    limits = [total * (index + 1) // count for index in range(count)]
    result: list[list[Move]] = [[] for _ in range(count)]
    index = begin = 0
    for target, source, size in moves:
        done = 0
        while done < size:
            while limits[index] <= begin:
                index += 1
            part = min(size - done, limits[index] - begin)
            result[index].append((target + done, source + done, part))
            done, begin = done + part, begin + part
    return result


def threads_for(total_bytes: int) -> int:
    """Return how many threads are worth their while for so many bytes."""
    cores = min(len(os.sched_getaffinity(0)), torch.get_num_threads(), THREADS_MAX)
    return max(1, min(cores, total_bytes // SHARE_BYTES_MIN))


def _move(moves: Sequence[Move]) -> None:
    for target, source, count in moves:
        if count <= HOLDING_BYTES_MAX:
            _memmove_holding(target, source, count)
        else:
            _memmove(target, source, count)
