"""The requests for the batches of a pass: indices and seeds, in the order in which batches are fetched."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import Sampler

from trainerd.training.data.lazy_order import LazyOrder, LazyShare
from trainerd.training.data.seeded_fetch import BatchRequest
from trainerd.training.data.seeds import folded
from trainerd.training.data.sharding import OwnShardedOrder, ShardedOrder

RankOrder = Sequence[Any] | LazyOrder | LazyShare
"""One rank's batches of a pass."""


class BatchRequests(Sampler[BatchRequest]):
    """The requests of an epoch from a position on. Set for each epoch; the loader around it lives on."""

    def __init__(self) -> None:
        self._order: RankOrder = ()
        self._start = 0
        self._seeds = 0
        self._indices: deque[Any] | None = None
        self._states: Mapping[int, bytes] = {}

    def point_at(
        self,
        order: RankOrder,
        start: int,
        seeds: int,
        indices: deque[Any] | None,
        states: Mapping[int, bytes] | None = None,
    ) -> None:
        """Set what the next iterator yields.

        Args:
            order: Batches of the pass.
            start: Number of the first.
            seeds: What the seeds of the batches are folded from.
            indices: Gets the indices of each batch.
            states: What the workers get that read the first batches, by the batch's number on this rank.
        """
        self._order, self._start, self._seeds, self._indices = order, start, seeds, indices
        self._states = states or {}

    def __len__(self) -> int:
        length = length_of(self._order)
        return 0 if length is None else max(length - self._start, 0)

    def __iter__(self) -> Iterator[BatchRequest]:
        # Bound here, for an iterator made for one epoch must not follow the sampler into the next.
        return _requests(self._order, self._start, self._seeds, self._indices, self._states)


def _requests(
    order: RankOrder, start: int, seeds: int, noted: deque[Any] | None, states: Mapping[int, bytes]
) -> Iterator[BatchRequest]:
    for batch, (number, indices) in enumerate(numbered(order, start), start):
        if noted is not None:
            noted.append(indices)
        yield BatchRequest(folded(number, state=seeds) >> 1, indices, states.get(batch))


def numbered(order: RankOrder, start: int) -> Iterator[tuple[int, Any]]:
    """Yield the batches from number `start` on, with numbers that no other rank's batches have."""
    if isinstance(order, LazyOrder | LazyShare):
        return order.numbered_from(start)
    if isinstance(order, ShardedOrder | OwnShardedOrder):
        return ((order.number(batch), order[batch]) for batch in range(start, len(order)))
    return ((batch, order[batch]) for batch in range(start, len(order)))


def length_of(order: RankOrder) -> int | None:
    """Return how many batches a pass has, None if that is not known."""
    return order.length if isinstance(order, LazyOrder | LazyShare) else len(order)
