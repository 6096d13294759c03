"""A source for loops without a loader: the numbers of their iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trainerd.training.data.passes import Pass


class CountedSource:
    """Numbers from 0, for a script that makes its batches itself.

    Attributes:
        total: How many there are.
        is_idle_at_boundary: Whether waiting for the next number changes nothing that a checkpoint holds.
        ends_with_loader: No: it is made for each loop.
    """

    is_idle_at_boundary = True
    ends_with_loader = False
    was_there = False
    ends_silently = False

    def __init__(self, total: int) -> None:
        self.total = total

    def length(self, which: Pass) -> int:
        del which
        return self.total

    def identity(self) -> str:
        """Return the same for all: none has a state."""
        return "steps"

    def extent(self) -> dict[str, int]:
        """Return nothing: a run may go on for more steps than were planned."""
        return {}

    def begin(self, saved: Mapping[str, Any] | None, done: int) -> None:
        """Do nothing: the numbers follow from where the loop goes on."""

    def generators(self) -> list[Any]:
        return []

    def saved(self, done: int | None) -> dict[str, Any]:
        """Return nothing."""
        del done
        return {}

    def iterate(self, which: Pass, start: int, is_draining: Callable[[], bool]) -> Iterator[int]:
        del which, is_draining
        return iter(range(start, self.total))
