"""Iterating over something of the user's, on random streams of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from trainerd.training.data.foreign_loaders import ForeignLoaders
from trainerd.training.data.seeds import folded
from trainerd.training.data.workers import drain_signals_blocked
from trainerd.training.state.rng import isolated_cpu_generators


def in_isolation(iterable: Iterable[Any], start: int, seeds: int, inner: ForeignLoaders) -> Iterator[Any]:
    """Begin an iterable at once, and yield its batches, each drawn from a stream of its own.

    Args:
        iterable: The iterable.
        start: Number of the batch that it yields first.
        seeds: What the seeds of the batches are folded from.
        inner: Takes care of loaders that begin within it.
    """
    inner.point_at(seeds >> 1)
    # On the stream of the first batch: what an undisturbed pass begins within the first ``next`` may begin
    # here when it is resumed.
    with drain_signals_blocked(), isolated_cpu_generators(folded(0, state=seeds) >> 1), inner:
        iterator = iter(iterable)
    return _batches(iterator, start, seeds, inner)


def _batches(iterator: Iterator[Any], start: int, seeds: int, inner: ForeignLoaders) -> Iterator[Any]:
    for batch in itertools.count(start):
        # A generator of a user's may start workers only now.
        with drain_signals_blocked(), isolated_cpu_generators(folded(batch, state=seeds) >> 1), inner:
            try:
                found = next(iterator)
            except StopIteration:
                return
        yield found
