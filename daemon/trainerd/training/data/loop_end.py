"""How a loop over batches came to its end: by a ``break``, or by an exception in the middle of a step.

Python closes the generator in both cases, at once, and tells it the same. But a step that was broken off by
an exception is not done: it must not be counted, let alone saved. What tells them apart is the instruction at
which the code with the loop stands: one that takes the loop's iterator off the stack, or the one that raised.
"""

from __future__ import annotations

import opcode
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

_TAKES_ITERATOR_OFF: Final = {"POP_TOP", "POP_ITER", "END_FOR", "FOR_ITER"}
"""``break`` and ``return`` in the loop, or the end of something that was looped over beside it."""
_PASSES_ON: Final = {"YIELD_VALUE", "RESUME", "SEND", "RETURN_GENERATOR"}
"""Generators that wrap ours, such as tqdm's, are closed on the way to it."""


def was_left_on_purpose(depth: int = 1) -> bool:
    """Tell whether the loop over the generator that is being closed was left by a ``break`` or the like.

    To be called where the generator catches ``GeneratorExit``. False means that it was an exception, or that
    it cannot be told.

    Args:
        depth: Of the generator's frame above the caller of this function: 1 if the generator itself calls it.
    """
    frame: FrameType | None = sys._getframe(depth + 1)  # noqa: SLF001 - the public way there, inspect, asks the same
    while frame is not None and _instruction(frame) in _PASSES_ON:
        frame = frame.f_back
    return frame is not None and _instruction(frame) in _TAKES_ITERATOR_OFF


def _instruction(frame: FrameType) -> str:
    at = frame.f_lasti
    while at > 0 and opcode.opname[frame.f_code.co_code[at]] == "CACHE":
        at -= 2  # the instruction stands before its caches
    return opcode.opname[frame.f_code.co_code[at]] if at >= 0 else ""
