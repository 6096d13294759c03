"""How a loop over batches is driven and how it came to its end, read off the instructions of its caller.

Python closes the generator in both cases, at once, and tells it the same. But a step that was broken off by
an exception is not done: it must not be counted, let alone saved. What tells them apart is the instruction at
which the code with the loop stands: one that takes the loop's iterator off the stack, or the one that raised.

Likewise a ``for`` asks for a batch by an instruction of its own, and an explicit ``next`` by a call.
"""

from __future__ import annotations

import inspect
import opcode
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType, FrameType

_TAKES_ITERATOR_OFF: Final = {"POP_TOP", "POP_ITER", "END_FOR"}
"""``break`` and ``return`` in the loop, or the end of something that was looped over beside it."""
_ASKS: Final = "FOR_ITER"
"""Where a ``for`` asks for the next item. One that stands here was ended by what it loops over, or left by an
exception of that."""
_POPS: Final = {"POP_TOP", "POP_ITER"}
_BETWEEN_POPS: Final = {"SWAP", "NOP", "CACHE", "EXTENDED_ARG"}
_PASSES_ON: Final = {"YIELD_VALUE", "RESUME", "SEND", "RETURN_GENERATOR"}
"""Generators that wrap ours, such as tqdm's, are closed on the way to it."""


Places = tuple[tuple["CodeType", int], ...]
Asking = frozenset[tuple["CodeType", int]]
"""The ``for`` loops that ask for an item: their code, and where in it they stand."""


def loops_that_ask(depth: int = 1) -> Asking:
    """Return the ``for`` loops that the next item of a generator goes to.

    To be called by the generator before its first item. A loop over a generator around it is one of them.

    Args:
        depth: See `was_left_on_purpose`.
    """
    found = set()
    frame: FrameType | None = sys._getframe(depth + 1)  # noqa: SLF001 - see below
    while frame is not None and _instruction(frame) in {_ASKS, "SEND"}:
        found.add((frame.f_code, frame.f_lasti))
        if not frame.f_code.co_flags & inspect.CO_GENERATOR:
            break
        frame = frame.f_back
    return frozenset(found)


def places_that_ask() -> Places:
    """Return the places in the script that ask for something, through the generators that pass it on."""
    found = []
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - see above
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith("trainerd."):
            found.append((frame.f_code, frame.f_lasti))
            if not frame.f_code.co_flags & inspect.CO_GENERATOR:
                break
        frame = frame.f_back
    return tuple(found)


def was_left_on_purpose(asking: Asking, depth: int = 1) -> bool:
    """Tell whether the loop over the generator that is being closed was left by a ``break`` or the like.

    To be called where the generator catches ``GeneratorExit``. False means that it was an exception, or that
    it cannot be told. An exception of another loop within the body leaves that loop where it asks for its
    next item; the loop over this generator stands there only if something beside it, as in ``zip``, ended.

    Args:
        asking: What `loops_that_ask` returned at the beginning.
        depth: Of the generator's frame above the caller of this function: 1 if the generator itself calls it.
    """
    frame: FrameType | None = sys._getframe(depth + 1)  # noqa: SLF001 - the public way there, inspect, asks the same
    while frame is not None and _instruction(frame) in _PASSES_ON:
        frame = frame.f_back
    if frame is None:
        return False
    instruction = _instruction(frame)
    return instruction in _TAKES_ITERATOR_OFF or (
        instruction == _ASKS and (frame.f_code, frame.f_lasti) in asking
    )


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


def is_at_for(frame: FrameType) -> bool:
    """Tell whether a frame stands where a ``for`` asks for its next item."""
    return _instruction(frame) == _ASKS


def _instruction(frame: FrameType) -> str:
    at = frame.f_lasti
    while at > 0 and opcode.opname[frame.f_code.co_code[at]] == "CACHE":
        at -= 2  # the instruction stands before its caches
    return opcode.opname[frame.f_code.co_code[at]] if at >= 0 else ""
