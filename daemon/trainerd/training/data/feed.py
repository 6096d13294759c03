"""Batches for a framework that lets its iterator be replaced: pass after pass, from where the run is."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from trainerd.training.data.drawing import known_length
from trainerd.training.data.passes import TRAINING, Pass
from trainerd.training.data.silent_ends import silent_end
from trainerd.training.data.sources import source_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainerd.contract.verdict import Reason
    from trainerd.training.data.passes import Source


class Feed:
    """One stream of batches over a loader, which is begun again each time it is exhausted.

    Any loader that a session takes. It is tracked as an object: its state is where the stream is. Each rank
    gets what its own sampler yields.

    Args:
        seed: Of the session.
        suspect: Takes in a known cause of inexactness.
        warn: Says something to the user once.
    """

    def __init__(self, seed: int, *, suspect: Callable[[Reason], None], warn: Callable[[str], None]) -> None:
        self._seed = seed
        self._suspect = suspect
        self._warn = warn
        self._loader: Any = None
        self._source: Source | None = None
        self._number = 0
        self._batch = 0
        self._has_begun = False
        self._is_resumed = False
        self._is_ahead = False
        self._saved: Any = None
        self._indices: deque[Any] = deque()
        self._done: list[Any] = []

    def iterate(self, loader: Any, *, is_next: bool = False, is_ahead: bool = False) -> Iterator[Any]:
        """Begin the next pass over `loader`, or what is left of the one that was interrupted.

        Args:
            loader: The loader.
            is_next: Whether it is the next pass in any case: nothing is left of the one before.
            is_ahead: Whether the framework fetches one batch ahead of the one that it trains on.
        """
        self._is_ahead = is_ahead
        if loader is not self._loader or self._source is None:
            self._close_source()
            self._loader = loader
            self._source = source_for(loader, seed=self._seed, warn=self._warn, suspect=self._suspect)
        goes_on, self._is_resumed = self._is_resumed and not is_next, False
        if goes_on and self._source.ends_silently and self._batch == known_length(loader):
            return iter(())  # it would go on with a whole pass more
        if not goes_on:
            self._number += self._has_begun
            self._batch = 0
        self._has_begun = True
        saved, self._saved = self._saved, None
        self._indices = deque()
        self._source.begin(saved, self._batch)
        which = Pass((TRAINING, 0), self._number, None, self._indices)
        length = self._source.length(which)  # draws the order of the pass that trains
        if length is None and self._source.ends_silently:
            self._suspect(silent_end(loader, "the framework asks for it"))
        return self._batches(self._source, which)

    def _batches(self, source: Source, which: Pass) -> Iterator[Any]:
        for batch in source.iterate(which, self._batch, lambda: False):
            self._batch += 1
            if self._indices:
                self._done.append(self._indices.popleft())
            yield batch
        self._is_ahead = False  # of nothing

    def taken(self) -> list[Any]:
        """Return what the sampler gave for the batches since the last call, as far as that is known.

        A batch that was only fetched ahead is not among them.
        """
        count = len(self._done) - self._is_ahead
        done, self._done = self._done[:count], self._done[count:]
        return done

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is."""
        state: dict[str, Any] = {"has_begun": self._has_begun, "number": self._number, "batch": self._batch}
        if self._saved is not None:
            state["source"] = self._saved
        elif self._source is not None and self._has_begun:
            state["source"] = self._source.saved(self._batch)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there with the next `iterate`. A stream that has begun already is left as it is."""
        if self._source is not None:
            return
        self._has_begun = self._is_resumed = state["has_begun"]
        self._number, self._batch = state["number"], state["batch"]
        self._saved = state.get("source")

    def close(self) -> None:
        """Let go of the loader, and so of workers that persist."""
        self._close_source()
        self._loader = None

    def _close_source(self) -> None:
        close = getattr(self._source, "close", None)
        if close is not None:
            close()
        self._source = None
