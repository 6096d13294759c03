"""Iterators of Python around a training loop that have a position of their own, which no checkpoint holds.

Each attempt begins them again: ``islice`` counts from 0, and a list in a ``zip`` from its first value. What a
loop is wrapped in is told by what refers to its generator, through the generators and iterators around it.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from torch.utils.data import dataloader

from trainerd.contract.verdict import Reason
from trainerd.errors import UserError
from trainerd.training.state.caller_names import place_of_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_LEVELS_MAX: Final = 4
"""So many iterators around each other are looked through."""
_ZIPS: Final = (zip, itertools.zip_longest)
_PASS_ON: Final = (types.GeneratorType, map, filter, enumerate, itertools.chain, itertools.starmap, *_ZIPS)
_KEEPS: Final = (itertools.accumulate, itertools.compress, itertools.dropwhile, itertools.pairwise)
_COUNTS: Final = (type(iter(range(0))), itertools.count)
_VALUES: Final = (
    *map(type, (iter([]), iter(()), iter(set()), iter({}), iter({}.values()), iter({}.items()))),
    *map(type, (iter(""), iter(b""), reversed([]), enumerate(()), itertools.cycle(()))),
)
_NUMBERED: Final = (
    "end the loop by its number: for number, batch in session.enumerate(loader): ...; "
    "if number + 1 == n: break"
)
_IN_STEP: Final = "draw from both in step: for a, b in session.batches(loader, other)"


def check_wrapper(batches: Any, suspect: Callable[[Reason], None]) -> None:
    """Check that a loop is not wrapped in something that counts or repeats batches by itself.

    Args:
        batches: The generator of the loop.
        suspect: Takes in what is drawn beside the loop and may have a position.

    Raises:
        UserError: It is, or is zipped with something that begins again in every attempt.
    """
    level = [batches, *_running_generators()]
    seen = set(map(id, level))
    for _ in range(_LEVELS_MAX):
        around = [each for inner in level for each in _around(inner, suspect) if id(each) not in seen]
        seen.update(map(id, around))
        for each in around:
            _check(each)
        level = [each for each in around if isinstance(each, _PASS_ON)]


def _running_generators() -> Iterator[Any]:
    """Yield the generators through which a batch is asked for: while they run, what they hold is not seen."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - the public way there, inspect, asks the same
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith("trainerd."):
            if not frame.f_code.co_flags & inspect.CO_GENERATOR:
                return
            for each in gc.get_referrers(frame):
                if isinstance(each, types.GeneratorType) and each.gi_frame is frame:
                    yield each
        frame = frame.f_back


def _around(inner: Any, suspect: Callable[[Reason], None]) -> Iterator[Any]:
    """Yield what refers to an iterator. Of a ``zip`` and the like, check what they draw from beside it."""
    for each in gc.get_referrers(inner):
        if type(each) is not tuple:
            yield each
            continue
        for holder in gc.get_referrers(each):
            if isinstance(holder, _ZIPS):
                for beside in each:
                    if beside is not inner:
                        _check_beside(beside, suspect)
            if isinstance(holder, (map, *_ZIPS)):
                yield holder


def _check(each: Any) -> None:
    if isinstance(each, itertools.cycle):
        raise UserError(
            "itertools.cycle repeats batches that it keeps, and the session would not know of the steps",
            hint="begin a loop for each pass: while True: for batch in session.batches(loader): ...",
        )
    if isinstance(each, itertools.islice):
        raise UserError(
            "itertools.islice counts from 0 in every attempt: one that goes on in the middle of the loop "
            "would train more batches",
            hint=_NUMBERED,
        )
    if isinstance(each, _KEEPS):
        raise UserError(
            f"itertools.{type(each).__name__} depends on the batches before, and an attempt that goes on in "
            "the middle of the loop begins without them",
            hint="compute it in the body, and keep what it needs in session.value(...)",
        )


def _check_beside(beside: Any, suspect: Callable[[Reason], None]) -> None:
    """Check what a ``zip`` draws from beside a loop."""
    if isinstance(beside, itertools.repeat) or hasattr(beside, "state_dict"):
        return  # the same at every position, or an object that can be tracked
    if isinstance(beside, dataloader._BaseDataLoaderIter):  # noqa: SLF001 - public by no other name
        raise UserError(
            "zip draws from a plain DataLoader beside session.batches: it begins again in every attempt",
            hint=_IN_STEP,
        )
    if isinstance(beside, _COUNTS):
        raise UserError(
            "zip with a range or count counts from its beginning in every attempt: one that goes on in the "
            "middle of the loop would have other numbers, or train more batches",
            hint=_NUMBERED,
        )
    if isinstance(beside, _VALUES):
        raise UserError(
            f"zip draws from a {type(beside).__name__} beside session.batches: it begins at its first value "
            "in every attempt",
            hint=_IN_STEP,
        )
    suspect(
        Reason(
            "zip-beside",
            place_of_code(beside.gi_code)
            if isinstance(beside, types.GeneratorType)
            else type(beside).__name__,
            "zip draws from this beside session.batches: it begins again in every attempt, and gives other "
            "values unless it depends on nothing that was drawn before",
            _IN_STEP,
        )
    )
