"""Batches of an iterable that knows no position: begun again for each pass, and skipped by consumption."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from trainerd.contract.counted import counted
from trainerd.contract.verdict import Reason
from trainerd.training.data.batch_wait import WaitInterruptedError
from trainerd.training.data.dataset_memory import FirstMarks
from trainerd.training.data.drawing import known_length
from trainerd.training.data.foreign_loaders import ForeignLoaders
from trainerd.training.data.generator_loaders import GeneratorLoaders
from trainerd.training.data.isolation import in_isolation
from trainerd.training.data.loader_memory import LoaderMemory
from trainerd.training.data.made_late import PartsMadeLate, roots_of, without_roots
from trainerd.training.data.map_source import extent_of
from trainerd.training.data.passes import SAMPLE, Pass
from trainerd.training.data.root_identity import kind_of
from trainerd.training.data.seeds import folded

_FIRST_PASS: Final = ((1, 0), 0)


_AT_HAND: Final = frozenset({list, tuple, range})
"""Their items are there: to iterate over them draws nothing, and none needs to be loaded to be skipped."""


class IterableSource:
    """Any other iterable.

    It is begun, and each batch drawn, on streams of its own, so that skipping draws what was drawn before.
    What its generators and attributes were when the pass began is saved: that is where skipping begins.

    Args:
        iterable: The iterable.
        seed: Of the session.
        warn: Says something to the user once.
        suspect: Takes in a known cause of inexactness.
        is_copy: Whether it is a stock loader that was made here, so that nothing of its own is remembered.
        first: What there was before the first epoch.
    """

    is_idle_at_boundary = True
    ends_with_loader = False
    was_there = False
    ends_silently = False

    def __init__(
        self,
        iterable: Any,
        *,
        seed: int,
        warn: Callable[[str], None],
        suspect: Callable[[Reason], None],
        is_copy: bool = False,
        first: FirstMarks | None = None,
    ) -> None:
        self._iterable = iterable
        self._seed = seed
        self._warn = warn
        self._suspect = suspect
        roots = (
            {"dataset": iterable.dataset, "collate_fn": iterable.collate_fn}
            if is_copy
            else {"loader": iterable}
        )
        self._made_late = PartsMadeLate(roots, (first or FirstMarks()).parts, suspect)
        self._memory = LoaderMemory(roots, ("dataset" if is_copy else "loader",))
        self._at_beginning: dict[str, Any] = {}
        self._now: Mapping[str, Any] = {}
        self._inner = ForeignLoaders()
        self._drawn_from = GeneratorLoaders(iterable, suspect)

    def identity(self) -> str:
        dataset = getattr(self._iterable, "dataset", None)
        return "|".join(
            [kind_of(type(self._iterable)), kind_of(type(dataset)), *self._memory.identities.values()]
        )

    def length(self, which: Pass) -> int | None:
        del which
        return known_length(self._iterable)

    def extent(self) -> dict[str, int]:
        return extent_of(getattr(self._iterable, "dataset", self._iterable), self._iterable)

    def begin(self, saved: Mapping[str, Any] | None, done: int) -> None:
        saved = saved or {}
        memory = saved.get("memory", {})
        afresh = self._made_late.begin(saved, done, changed=roots_of(memory))
        self._now = memory if done else {}
        at_beginning = saved.get("memory_at_beginning", {}) if done else without_roots(memory, afresh)
        self._memory.put_back(at_beginning, is_inside=done > 0)

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Put back what is remembered between two passes, whatever the code before has done."""
        self._memory.put_back(saved.get("memory", {}), is_inside=True)

    def generators(self) -> list[Any]:
        return list(self._memory.generators.values())

    def saved(self, done: int | None) -> dict[str, Any]:
        self._drawn_from.look()
        changes = self._memory.saved()
        tree = {"memory": changes} | self._made_late.saved(changed=roots_of(changes)) if changes else {}
        return tree | {"memory_at_beginning": self._at_beginning} if done and self._at_beginning else tree

    def iterate(self, which: Pass, start: int, is_draining: Callable[[], bool]) -> Iterator[Any]:
        self._look_at_one_shot(which)
        self._made_late.pass_begins(which.place)
        self._at_beginning = self._memory.saved()
        if hasattr(self._iterable, "set_epoch"):
            self._iterable.set_epoch(which.epoch)
        if type(self._iterable) in _AT_HAND:
            return itertools.islice(self._iterable, start, None)
        seeds = folded(self._seed, SAMPLE, *which.place, which.epoch)
        batches = in_isolation(self._iterable, 0, seeds, self._inner)
        if start:
            self._skip(batches, start, is_draining)
        self._memory.put_back(self._now, is_inside=True)
        self._now = {}
        return batches

    def _skip(self, batches: Iterator[Any], start: int, is_draining: Callable[[], bool]) -> None:
        self._warn(
            f"resuming at batch {start} of an iterable without a state of its own: "
            f"{counted(start, 'batch is', 'batches are')} loaded and thrown away"
        )
        for _ in range(start):
            if is_draining():
                raise WaitInterruptedError
            next(batches, None)

    def _look_at_one_shot(self, which: Pass) -> None:
        """Report an iterator that cannot be begun again, unless this is the first pass over it in the run."""
        is_first = (which.place, which.epoch) == _FIRST_PASS
        if is_first or not isinstance(self._iterable, Iterator) or _is_made_for_pass(self._iterable):
            return
        code = getattr(self._iterable, "gi_code", None)
        place = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
        self._suspect(
            Reason(
                "iterator-not-restartable",
                f"{type(self._iterable).__qualname__}{place}",
                "an iterator goes on from pass to pass, and a resumed attempt begins it at its beginning",
                "pass batches() the loader itself, or an object whose __iter__ begins again",
            )
        )


def _is_made_for_pass(iterator: Iterator[Any]) -> bool:
    """Tell whether this is a generator that has not begun and draws from no other iterator."""
    if not inspect.isgenerator(iterator) or inspect.getgeneratorstate(iterator) != inspect.GEN_CREATED:
        return False
    frame = iterator.gi_frame
    return frame is None or not any(isinstance(value, Iterator) for value in frame.f_locals.values())
