"""How a loop over batches is driven and how it came to its end, read off the instructions of its caller.

Python closes the generator in both cases, at once, and tells it the same. But a step that was broken off by
an exception is not done: it must not be counted, let alone saved. What tells them apart is the instruction at
which the code with the loop stands: one that takes the loop's iterator off the stack, or the one that raised.

Likewise a ``for`` asks for a batch by an instruction of its own, and an explicit ``next`` by a call.
"""

from __future__ import annotations

import opcode
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

_TAKES_ITERATOR_OFF: Final = {"POP_TOP", "POP_ITER", "END_FOR", "FOR_ITER"}
"""``break`` and ``return`` in the loop, or the end of something that was looped over beside it."""
_POPS: Final = {"POP_TOP", "POP_ITER"}
_BETWEEN_POPS: Final = {"SWAP", "NOP", "CACHE", "EXTENDED_ARG"}
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


def leaves_several_loops(depth: int = 1) -> bool:
    """Tell whether a ``return`` leaves more loops than the one over the generator that is being closed.

    To be called like `was_left_on_purpose`, once that was true.
    """
    frame: FrameType | None = sys._getframe(depth + 1)  # noqa: SLF001 - see above
    while frame is not None and _instruction(frame) in _PASSES_ON:
        frame = frame.f_back
    if frame is None or _instruction(frame) not in _POPS:
        return False
    code, at = frame.f_code.co_code, frame.f_lasti + 2
    while at < len(code) and opcode.opname[code[at]] in _BETWEEN_POPS:
        at += 2
    return at < len(code) and opcode.opname[code[at]] in _POPS


def is_asked_explicitly(depth: int = 1) -> bool:
    """Tell whether a batch is asked for by an explicit call such as ``next(iterator)``, not by a ``for``.

    To be called by the generator. A ``__next__`` on the way passes on the way in which it was called.

    Args:
        depth: See `was_left_on_purpose`.
    """
    frame: FrameType | None = sys._getframe(depth + 1)  # noqa: SLF001 - see above
    while frame is not None and frame.f_code.co_name == "__next__":
        frame = frame.f_back
    return frame is not None and _instruction(frame).startswith(("CALL", "PRECALL"))


def _instruction(frame: FrameType) -> str:
    at = frame.f_lasti
    while at > 0 and opcode.opname[frame.f_code.co_code[at]] == "CACHE":
        at -= 2  # the instruction stands before its caches
    return opcode.opname[frame.f_code.co_code[at]] if at >= 0 else ""
