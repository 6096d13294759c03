"""Moments in which the garbage collector must not run.

A snapshot makes thousands of small objects, which makes Python look through all objects of the process,
torch's included: 10 ms and more, while the loop waits or the grace period runs out. What is made here has no
cycles.
"""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["no_collection"]


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Keep the collector from running in this block, in any thread. Leaves it on or off as before."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
