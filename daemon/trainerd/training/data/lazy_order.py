"""The batches of a sampler that is infinite or very long: drawn as they are needed, never listed.

Nothing of it can go into a checkpoint but how far it is: a resumed pass draws the sampler from its beginning,
on the streams that it had, past what was used. A digest of the batches passed over is compared with that of
the checkpoint, so that a sampler that depends on anything else does not go on unnoticed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from trainerd.training.data.own_streams import OwnStreams
from trainerd.training.data.sample_digest import BEGINNING, folded_in
from trainerd.training.data.seeds import folded
from trainerd.training.data.sharding import ShardPlan

CHUNK: Final = 32
"""How many batches are drawn at a time: streams of their own are set up for each chunk."""


class LazyOrder:
    """Batches of a sampler, drawn in chunks.

    Args:
        sampler: Yields them.
        streams: What it draws from.
        seed: Of the order of this epoch.
        length: How many batches the sampler says it has, None if that is not known or not true.

    Attributes:
        length: As given.
    """

    def __init__(self, sampler: Any, streams: OwnStreams, seed: int, *, length: int | None) -> None:
        self.length = length
        self._sampler = sampler
        self._streams = streams
        self._seed = seed
        self._digests: list[int | None] = [BEGINNING]
        self._expected: tuple[int, Any, Callable[[], None]] | None = None

    def drawn_to(self, batch: int) -> dict[str, Any]:
        """Return how far the pass is once `batch` of its batches are done, as a tree for a checkpoint."""
        chunk = min(batch // CHUNK, len(self._digests) - 1)
        digest = self._digests[chunk]
        return {"at": chunk, "digest": None if digest is None else f"{digest:016x}"}

    def expect(self, drawn: Mapping[str, Any], differs: Callable[[], None]) -> None:
        """Compare what is drawn next with what `drawn_to` returned, and call `differs` if it is not equal."""
        self._expected = (drawn["at"], drawn["digest"], differs)

    def numbered_from(self, start: int) -> Iterator[tuple[int, Any]]:
        """Yield the batches from number `start` on, with their numbers."""
        number = 0
        for chunk in self._chunks():
            if number + len(chunk) > start:
                first = max(start - number, 0)
                yield from enumerate(chunk[first:], number + first)
            number += len(chunk)

    def _chunks(self) -> Iterator[list[Any]]:
        self._digests = [BEGINNING]
        iterator: Iterator[Any] | None = None
        for count in itertools.count():
            self._compare(count)
            self._streams.begin(folded(self._seed, count) >> 1)
            try:
                if iterator is None:
                    iterator = iter(self._sampler)
                chunk = list(itertools.islice(iterator, CHUNK))
            finally:
                self._streams.end()
            digest = self._digests[-1]
            for batch in chunk:
                digest = folded_in(digest, batch)
            self._digests.append(digest)
            yield chunk
            if len(chunk) < CHUNK:
                return

    def _compare(self, count: int) -> None:
        if self._expected is None or self._expected[0] != count:
            return
        _, expected, differs = self._expected
        self._expected = None
        if self.drawn_to(count * CHUNK)["digest"] != expected:
            differs()


class LazyShare:
    """One rank's batches of a lazily drawn order: every so manyth."""

    def __init__(self, order: LazyOrder, plan: ShardPlan, *, shards_itself: bool) -> None:
        self.order = order
        self._plan = plan
        self._shards_itself = shards_itself
        self.length = order.length
        if order.length is not None and not shards_itself:
            left = max(order.length - plan.resharded_after, 0)
            self.length = plan.resharded_at + left // plan.world_size

    def numbered_from(self, start: int) -> Iterator[tuple[int, Any]]:
        """Yield the rank's batches from number `start` of them on, with numbers that no other rank has."""
        plan = self._plan
        if self._shards_itself:
            for number, batch in self.order.numbered_from(start):
                yield number * plan.world_size + plan.rank, batch
            return
        first = self.done_of_all(start)
        found = self.order.numbered_from(first)
        while len(round_ := list(itertools.islice(found, plan.world_size))) == plan.world_size:
            yield round_[plan.rank]

    def done_of_all(self, batch: int) -> int:
        """Return how many batches of the order all ranks have had once each has had `batch`."""
        plan = self._plan
        if self._shards_itself:
            return batch
        return plan.resharded_after + (batch - plan.resharded_at) * plan.world_size
