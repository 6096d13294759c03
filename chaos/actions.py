"""What a rank does to itself when the harness tells it to: the faults that come from inside."""

from __future__ import annotations

import ctypes
import os
import resource
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

DEEDS: Final = ("go", "raise", "deadlock", "hold-gil", "hog-memory", "nan", "abort-in-c", "slow-disk")
HOG_LIMIT_BYTES: Final = 512 * 1024**2
"""A hog may grow by so much: enough to be an error of memory, too little to trouble the machine."""

SLOW_WRITE_S: Final = 0.5
_HOG_BLOCK_BYTES: Final = 32 * 1024**2


class InjectedError(RuntimeError):
    """The error that a rank was told to raise."""


def do(action: str) -> str:
    """Do it; return what only the training loop itself can do, such as `nan`, or `go`.

    Raises:
        InjectedError: That is the action.
        MemoryError: The action is to use up all memory, and it is used up.
    """
    if action == "raise":
        raise InjectedError("chaos told this rank to raise")
    if action == "deadlock":
        _deadlock()
    elif action == "hold-gil":
        _hold_interpreter_lock()
    elif action == "hog-memory":
        _hog_memory()
    elif action == "abort-in-c":
        ctypes.CDLL(None).abort()
    elif action == "slow-disk":
        _slow_down_the_disk()
    return action


def _slow_down_the_disk() -> None:
    """From now on every write and sync of this process takes longer by half a second, in whatever thread."""
    for name in ("fsync", "fdatasync", "pwrite", "pwritev", "writev"):
        setattr(os, name, _slowed(getattr(os, name)))


def _slowed(call: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(SLOW_WRITE_S)
        return call(*arguments, **named)

    return slow


def _deadlock() -> None:
    """Wait for a lock that is never released. Signal handlers of Python still run."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _hold_interpreter_lock() -> None:
    """Block in C with the interpreter lock held: no handler runs, no other thread runs."""
    mutex = ctypes.create_string_buffer(64)  # zeros are an unlocked mutex that its own thread deadlocks on
    holding = ctypes.PyDLL(None)
    holding.pthread_mutex_lock(mutex)
    holding.pthread_mutex_lock(mutex)


def _hog_memory() -> None:
    """Take memory until there is none, under a limit of this process's own."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    now_bytes = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now_bytes + HOG_LIMIT_BYTES, now_bytes + HOG_LIMIT_BYTES))
    hoard = []
    while True:
        hoard.append(bytearray(_HOG_BLOCK_BYTES))
