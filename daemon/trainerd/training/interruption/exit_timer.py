"""A timer that ends the process without the help of the interpreter.

While the interpreter is torn down, no thread but the main one can run Python code. A hang there, in a
destructor or a C library, is out of reach of a watchdog thread. The kernel's timer starts a thread of the C
library, which calls ``_exit`` itself.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_SIGEV_THREAD: Final = 2
_SIGEVENT_BYTES: Final = 64


class _Event(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_size_t),  # union sigval: handed to the function as its argument
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("rest", ctypes.c_char * (_SIGEVENT_BYTES - 32)),
    )


class _Interval(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class ExitTimer:
    """Ends this process after a time, unless it is cancelled. A forked child does not inherit it.

    Where the system has no such timer, nothing happens.

    Args:
        code: Exit code.
        limit_s: When, in seconds from now.
    """

    def __init__(self, code: int, limit_s: float) -> None:
        self._timer: ctypes.c_void_p | None = None
        with contextlib.suppress(OSError, AttributeError, ValueError):
            libc = ctypes.CDLL(None)
            timer = ctypes.c_void_p()
            end = ctypes.cast(libc["_exit"], ctypes.c_void_p).value
            event = _Event(value=code, notify=_SIGEV_THREAD, function=end)
            if libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) != 0:
                return
            self._timer = timer
            limit_ns = max(int(limit_s * 1e9), 1)  # 0 would disarm it
            when = _Interval(0, 0, limit_ns // 10**9, limit_ns % 10**9)
            libc.timer_settime(timer, 0, ctypes.byref(when), None)

    def cancel(self) -> None:
        """Let the process live on."""
        if self._timer is not None:
            ctypes.CDLL(None).timer_delete(self._timer)
            self._timer = None
