"""Calls to the CUDA driver from one thread while another thread captures a CUDA graph.

By default the driver allows no thread a call that might wait (an event, a copy to the host, memory) while any
thread captures with ``capture_error_mode="global"``, which is the default of `torch.cuda.graph`. The call
fails, and so does the capture. A thread that has told the driver to look at its own captures alone may go on.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Final

import torch

_DRIVER: Final = "libcuda.so.1"
_THREAD_LOCAL: Final = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


def ignore_captures_of_others() -> None:
    """Let this thread call the driver whatever other threads capture, from now on.

    Does nothing in a process that has not used a device. Where the driver refuses, all stays as it is: a
    capture during a save may then fail.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    if (driver := _driver()) is not None:
        driver.cuThreadExchangeStreamCaptureMode(ctypes.byref(ctypes.c_int(_THREAD_LOCAL)))


@functools.cache
def _driver() -> Any:
    try:
        driver = ctypes.CDLL(_DRIVER)
        driver.cuThreadExchangeStreamCaptureMode.restype = ctypes.c_int
    except (OSError, AttributeError):  # ROCm has the runtime of another maker
        return None
    return driver
