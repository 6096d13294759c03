"""A source that draws from several loaders in step, as ``zip`` does, and resumes each at its position."""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import TYPE_CHECKING, Any

from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from trainerd.training.data.passes import Pass, Source


class ZippedSource:
    """Tuples of batches, one of each source. A pass ends with the shortest of them.

    Args:
        sources: Where the batches of a tuple come from, in their order.

    Attributes:
        parts: The sources.
        is_idle_at_boundary: Whether waiting for the next tuple changes nothing that a checkpoint holds.
        ends_silently: Whether one of them does.

    Raises:
        UserError: There is none, or one is there twice: its two loops would share one position.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        if not sources:
            raise UserError("batches() needs a loader")
        if len({id(source) for source in sources}) < len(sources):
            raise UserError("batches() got the same loader twice: give each place a loader of its own")
        self.parts = tuple(sources)
        self.ends_with_loader = self.was_there = False  # it is made for each loop
        self.is_idle_at_boundary = all(source.is_idle_at_boundary for source in sources)
        self.ends_silently = any(source.ends_silently for source in sources)

    def length(self, which: Pass) -> int | None:
        """Return how many tuples the pass has, None if the length of one source is not known."""
        lengths = [source.length(part) for source, part in self._passes(which)]
        known = [length for length in lengths if length is not None]
        return min(known) if len(known) == len(lengths) else None

    def identity(self) -> str:
        """Return the identities of all of them."""
        return "|".join([source.identity() for source in self.parts])

    def extent(self) -> dict[str, int]:
        """Return the extent of each source, under its number."""
        return {
            f"{number}.{name}": extent
            for number, source in enumerate(self.parts)
            for name, extent in source.extent().items()
        }

    def begin(self, saved: Mapping[str, Any] | None, done: int) -> None:
        """Get ready for a pass that trains; see `Source`."""
        for number, source in enumerate(self.parts):
            source.begin((saved or {}).get(str(number)), done)

    def generators(self) -> list[Any]:
        return [generator for source in self.parts for generator in source.generators()]

    def saved(self, done: int | None) -> dict[str, Any]:
        """Return what a checkpoint must hold of each source, by its number."""
        found = {str(number): source.saved(done) for number, source in enumerate(self.parts)}
        return {number: saved for number, saved in found.items() if saved}

    def iterate(self, which: Pass, start: int, is_draining: Callable[[], bool]) -> Iterator[Any]:
        """Yield the tuples of the pass from number `start` on.

        A wait is not interrupted if one of the sources has moved on by what was fetched before that wait.

        Raises:
            WaitInterruptedError: `is_draining` came true during the wait for a batch.
        """
        heard = is_draining if self.is_idle_at_boundary else _never
        parts = [(source, dataclasses.replace(part, indices=deque())) for source, part in self._passes(which)]
        iterators = [source.iterate(part, start, heard) for source, part in parts]
        noted = [part.indices for _, part in parts if part.indices is not None]
        return _in_step(iterators, noted, which.indices)

    def _passes(self, which: Pass) -> list[tuple[Source, Pass]]:
        return [
            (source, dataclasses.replace(which, place=(*which.place, number), indices=None))
            for number, source in enumerate(self.parts)
        ]


def _in_step(
    iterators: list[Iterator[Any]], noted: list[deque[Any]], indices: deque[Any] | None
) -> Iterator[Any]:
    for batches in zip(*iterators, strict=False):
        found = tuple([part.popleft() if part else None for part in noted])
        if indices is not None and found.count(None) < len(found):
            indices.append(found)
        yield batches


def _never() -> bool:
    return False
