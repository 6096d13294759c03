"""Fetching a batch of a map-style dataset under a seed of its own, in this process or in a worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from trainerd.training.data.found_generators import find_generators
from trainerd.training.data.own_streams import OwnStreams
from trainerd.training.data.purity import draws_nothing
from trainerd.training.data.read_caches import ReadCaches
from trainerd.training.data.worker_watch import WorkerWatch


class BatchRequest(NamedTuple):
    """What a fetch is asked for: a batch's indices, and the seed of its randomness.

    Attributes:
        seed: The seed.
        indices: The indices.
        state: What a worker of a former attempt had kept when it had read so far, see `WorkerWatch`.
    """

    seed: int
    indices: Any
    state: bytes | None = None


class SeededFetch(Dataset[Any]):
    """Fetches and collates a whole batch under a seed of its own.

    So what random transforms draw depends on (seed, epoch, batch) and on nothing that happened before: not on
    the number of workers, nor on which of them got the batch, nor on where the attempt began. That holds for
    the global generators, and for those that the dataset and the collate function hold, in a worker's copy of
    them as in this process.

    Args:
        dataset: The dataset.
        collate: Collates samples.
        is_batched: Whether a request is for a list of samples.
        tells_changes: Whether a worker returns a batch within a `ToldBatch` if reading it changed something.
        keeps_caches: Whether what reading keeps in this process lives on from pass to pass.

    Attributes:
        dataset: The dataset.
        caches: What reading keeps in this process.
        draws_nothing: Whether fetching is known to draw no random number.
    """

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[Any], Any],
        *,
        is_batched: bool,
        tells_changes: bool = False,
        keeps_caches: bool = True,
    ) -> None:
        self._tells_changes = tells_changes
        self._keeps_caches = keeps_caches
        self._watch: WorkerWatch | None = None
        self.dataset = dataset
        self._collate = collate
        self._is_batched = is_batched
        self.draws_nothing = draws_nothing(dataset, collate)
        self._fetch_many = getattr(dataset, "__getitems__", None) if is_batched else None
        self._streams = OwnStreams({})
        self._found_in: int | None = None
        self.caches = self._new_caches()

    def _new_caches(self) -> ReadCaches:
        roots = {"dataset": self.dataset, "collate_fn": self._collate}
        return ReadCaches(roots, are_kept=self._keeps_caches)

    def find_generators(self) -> set[str]:
        """Look for the generators of the dataset and the collate function, and return their paths."""
        found = {} if self.draws_nothing else self._find()
        self._streams = OwnStreams(found)
        self._found_in = os.getpid()
        return set(found)

    def _find(self) -> dict[str, Any]:
        return find_generators(dataset=self.dataset, collate_fn=self._collate).by_path

    def __getitem__(self, request: BatchRequest) -> Any:
        if self.draws_nothing:
            return self._fetch(request.indices)
        if self._found_in != os.getpid():
            self.find_generators()  # in a worker, after its ``worker_init_fn``
        if torch.utils.data.get_worker_info() is not None:
            return self._fetch_in_worker(request)
        self._streams.begin(request.seed)
        try:
            with self.caches.reading(self._count(request.indices), self._streams.generators):
                return self._fetch(request.indices)
        finally:
            self._streams.end()

    def _fetch_in_worker(self, request: BatchRequest) -> Any:
        if not self._tells_changes:
            self._streams.seed(request.seed)
            return self._fetch(request.indices)
        if self._watch is None:
            self._watch = WorkerWatch({"dataset": self.dataset, "collate_fn": self._collate})
            self.caches = self._new_caches()  # those of this process
        if request.state:
            self._watch.put_back(request.state)
        self._streams.seed(request.seed)
        with self.caches.reading(self._count(request.indices), self._streams.generators):
            batch = self._fetch(request.indices)
        return self._watch.look(batch, self.caches)

    def _count(self, indices: Any) -> int:
        return len(indices) if self._is_batched else 1

    def __getstate__(self) -> dict[str, Any]:
        # The generators of a copy are other ones.
        kept = {name: value for name, value in self.__dict__.items() if name != "caches"}
        return {**kept, "_streams": OwnStreams({}), "_found_in": None, "_watch": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.caches = self._new_caches()

    def _fetch(self, indices: Any) -> Any:
        if not self._is_batched:
            return self._collate(self.dataset[indices])
        if self._fetch_many:
            return self._collate(self._fetch_many(indices))
        dataset = self.dataset
        return self._collate([dataset[index] for index in indices])


def as_it_is(batch: Any) -> Any:
    """Return the batch: it is collated already."""
    return batch
