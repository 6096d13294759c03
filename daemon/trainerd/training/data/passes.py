"""One pass over the data, and what a source of batches must offer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from trainerd.training.data.sharding import ShardPlan

TRAINING: Final = 1
"""First number of the place of a pass that trains: a loader has the same order in whatever draws from it."""
SAMPLE: Final = 0x73616D70
"""Keeps the seeds of the samples apart from those of the order."""


@dataclass(frozen=True)
class Pass:
    """One pass over the data: which one it is decides its order and its randomness.

    Attributes:
        place: Tells the passes of an epoch apart, by numbers that do not depend on where the attempt began.
        epoch: Epoch in progress, for samplers with ``set_epoch``.
        plan: Which batches of it are this rank's; None gives it all of what the loader has.
        indices: Gets what the sampler gave for each batch that is fetched, in their order, if that is known.
    """

    place: tuple[int, ...]
    epoch: int
    plan: ShardPlan | None = None
    indices: deque[Any] | None = field(default=None, compare=False)


class Source(Protocol):
    """Batches of a pass, from any position on.

    Attributes:
        is_idle_at_boundary: Whether waiting for the next batch changes nothing that a checkpoint holds.
        ends_with_loader: Whether it lives as long as the script has the loader.
        was_there: Whether the loader is known to have been there before the first epoch of this attempt.
        ends_silently: Whether its state after the last batch of a pass may be that of the beginning of
            the next pass: only that no batch comes tells that the pass is over.
    """

    is_idle_at_boundary: bool
    ends_with_loader: bool
    was_there: bool
    ends_silently: bool

    def identity(self) -> str:
        """Return what it is told by in another attempt: the name of a class, then more after a ``|``."""
        ...

    def length(self, which: Pass) -> int | None:
        """Return how many batches the pass has, None if that is not known."""
        ...

    def extent(self) -> dict[str, int]:
        """Return what must not change in the middle of a pass.

        ``samples`` and ``batch_size``, as far as known.
        """
        ...

    def begin(self, saved: Mapping[str, Any] | None, done: int) -> None:
        """Get ready for a pass that trains, before its length is asked for and its batches are drawn.

        Args:
            saved: What `saved` returned at this boundary in an earlier attempt; None if there was none.
            done: How many batches of the pass are done.
        """
        ...

    def saved(self, done: int | None) -> dict[str, Any]:
        """Return what a checkpoint must hold for the pass to go on, as a tree; empty if nothing.

        Args:
            done: How many batches of the pass in progress are done; None between two passes.
        """
        ...

    def generators(self) -> list[Any]:
        """Return the random generators of the loader whose state `saved` returns too."""
        ...

    def iterate(self, which: Pass, start: int, is_draining: Callable[[], bool]) -> Iterator[Any]:
        """Yield the batches of the pass from number `start` on.

        Raises:
            WaitInterruptedError: `is_draining` came true during the wait for a batch.
        """
        ...
