"""A loader whose batches pass through a listener of a framework, which is told of its loops as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

from trainerd.training.data.passes import Pass, Source


class LoopListener(Protocol):
    """What a framework wants to know of the loops over one loader."""

    def begin(self) -> None:
        """A loop begins, or goes on in the middle."""
        ...

    def batch(self, batch: Any, *, is_last: bool) -> Any:
        """Return a batch as the script is to get it.

        Args:
            batch: The batch.
            is_last: Whether it is the last one; False if the length is not known.
        """
        ...

    def end(self) -> None:
        """The loop has come to its end, or was left."""
        ...


@dataclass(frozen=True, eq=False)
class ToldLoader:
    """A loader with a listener.

    Attributes:
        loader: Anything that ``session.batches`` takes.
        listener: What is told of its loops.
    """

    loader: Any
    listener: LoopListener

    @property
    def batch_sampler(self) -> Any:
        """The batch sampler of the loader, None if it has none."""
        return getattr(self.loader, "batch_sampler", None)


class ToldSource:
    """The source of a `ToldLoader`.

    Args:
        source: Source of the loader within.
        listener: What is told.

    Attributes:
        is_idle_at_boundary: As of the source within.
        ends_silently: As of the source within.
    """

    def __init__(self, source: Source, listener: LoopListener) -> None:
        self._source: Final = source
        self._listener: Final = listener
        self.is_idle_at_boundary = source.is_idle_at_boundary
        self.ends_silently = source.ends_silently

    @property
    def ends_with_loader(self) -> bool:
        """As of the source within."""
        return self._source.ends_with_loader

    @ends_with_loader.setter
    def ends_with_loader(self, ends: bool) -> None:
        self._source.ends_with_loader = ends

    @property
    def was_there(self) -> bool:
        """As of the source within."""
        return self._source.was_there

    @was_there.setter
    def was_there(self, was: bool) -> None:
        self._source.was_there = was

    def identity(self) -> str:
        return self._source.identity()

    def length(self, which: Pass) -> int | None:
        return self._source.length(which)

    def extent(self) -> dict[str, int]:
        return self._source.extent()

    def generators(self) -> list[Any]:
        return self._source.generators()

    def begin(self, saved: Mapping[str, Any] | None, done: int) -> None:
        self._source.begin(saved, done)

    def saved(self, done: int | None) -> dict[str, Any]:
        return self._source.saved(done)

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Put back what is remembered between two passes, if the source within does that."""
        put_back = getattr(self._source, "put_back", None)
        if put_back is not None:
            put_back(saved)

    def iterate(self, which: Pass, start: int, is_draining: Callable[[], bool]) -> Iterator[Any]:
        batches = self._source.iterate(which, start, is_draining)
        return _ToldBatches(batches, self._listener, start, self._source.length(which))

    def close(self) -> None:
        """End workers that persist."""
        close = getattr(self._source, "close", None)
        if close is not None:
            close()


class _ToldBatches:
    """The batches of one loop. Not a generator: an interrupted wait may be followed by another wait."""

    def __init__(
        self, batches: Iterator[Any], listener: LoopListener, start: int, length: int | None
    ) -> None:
        self._batches = batches
        self._listener = listener
        self._number = start
        self._length = length
        self._is_open = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if not self._is_open:
            self._is_open = True
            self._listener.begin()
        try:
            batch = next(self._batches)
        except StopIteration:
            self._end()
            raise
        self._number += 1
        return self._listener.batch(batch, is_last=self._number == self._length)

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._is_open:
            self._is_open = False
            self._listener.end()
