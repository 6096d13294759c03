"""How much of the processor reading one spec may take.

Sizes, depths and digits are bounded one by one where they are known to matter. This bounds the rest: a
parser that takes quadratic time for some text is stopped in the middle, since it is Python code that calls
functions, and the clock of the thread is looked at in every call.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from trainerd.supervisor.specs.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSOR_S_MAX: Final = 0.4
"""Longest time that reading one spec may take of the processor, in seconds. Real ones take a few ms."""

_CALLS_A_LOOK: Final = 256


@contextlib.contextmanager
def processor_limit(limit_s: float = PROCESSOR_S_MAX, *, interrupts: bool = True) -> Iterator[None]:
    """Raise ProblemsError once what this thread does has taken too long.

    Args:
        limit_s: How long it may take of the processor.
        interrupts: Whether to raise in the middle. That costs time for every call: a parser that looks at the
            clock itself does without.

    Raises:
        ProblemsError: It has.
    """
    deadline_s = time.thread_time() + limit_s
    calls_left = _CALLS_A_LOOK

    def look(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls_left
        calls_left -= 1
        # Not while something returns: what is raised there would be taken for the callee's.
        if calls_left <= 0 and event in {"call", "c_call"}:
            calls_left = _CALLS_A_LOOK
            if time.thread_time() > deadline_s:
                raise ProblemsError(too_slow(limit_s))

    before = sys.getprofile()
    if interrupts:
        sys.setprofile(look)
    try:
        yield
    finally:
        if interrupts:
            sys.setprofile(before)
    if time.thread_time() > deadline_s:
        raise ProblemsError(too_slow(limit_s))


def too_slow(limit_s: float = PROCESSOR_S_MAX, line: int | None = None) -> Problem:
    """Describe a spec that takes too long."""
    return Problem(
        f"reading the file takes more than {limit_s:g} s of processor time",
        line=line,
        hint="a spec is a page of text: look for very long keys, lists or numbers",
    )
