"""Makes loaders that others iterate over draw from streams that are functions of the pass.

A stateful loader, or an iterable with a loader inside, begins its loader when it likes, often within the
first ``next``. Where that moment lies depends on where an attempt began, and a loader draws then: the seed of
its workers. And in workers, what is drawn for a batch depends on which batches they had before.

So while a source fetches a batch, the loaders that begin are seeded from the pass alone, and the datasets in
their workers are wrapped: a batch is fetched under a seed folded from the pass and the batch's indices, a
stream under one folded from the pass and the worker's number.

torch has no public place for that: it hangs on the constructor that all its iterators share. Where a later
torch has none of that name, loaders begin as they do without this.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from typing import Any, Final

import torch
import xxhash
from torch.utils.data import DataLoader, Dataset, IterableDataset, IterDataPipe, MapDataPipe, dataloader

from trainerd.training.data.found_generators import find_generators
from trainerd.training.data.own_streams import OwnStreams
from trainerd.training.data.purity import draws_nothing
from trainerd.training.data.seeds import derive_seed
from trainerd.training.data.workers import end_with_parent, ignore_drain_signals
from trainerd.training.state.rng import isolated_cpu_generators

_BEGINNING: Final = 0x6265676E
"""Keeps the seed with which a loader begins apart from those of the batches."""


class ForeignLoaders:
    """The loaders that begin while one source fetches, as a context manager.

    Entered for every batch.
    """

    def __init__(self) -> None:
        self._seed = 0
        # Shared with workers: those that persist read here which pass it is.
        self._pass_seed = torch.zeros(1, dtype=torch.int64)
        _install()

    def point_at(self, seed: int) -> None:
        """Set the seed of the pass that begins."""
        self._seed = seed
        self._pass_seed.fill_(seed)

    def __enter__(self) -> None:
        _active.loaders = self

    def __exit__(self, *_: object) -> None:
        _active.loaders = None

    def begin(self, iterator: Any, loader: DataLoader[Any], init: Any) -> None:
        """Run the constructor of an iterator over a loader."""
        iterator.begun_by_trainerd = True  # for `LoadersBeside`
        # The seed of the workers is not drawn from the loader's generator, which its sampler has too: workers
        # that persist are begun once in an attempt, not once in a pass.
        generator, loader.generator = loader.generator, None
        try:
            with isolated_cpu_generators(derive_seed(self._seed, _BEGINNING)):
                init(iterator, loader)
        finally:
            loader.generator = generator
        dataset = loader.dataset
        is_pipe = isinstance(dataset, IterDataPipe | MapDataPipe)
        if loader.num_workers == 0 or is_pipe or draws_nothing(dataset, loader.collate_fn):
            return
        self._pass_seed.share_memory_()  # type: ignore[no-untyped-call]
        is_stream = isinstance(dataset, IterableDataset)
        has_state = hasattr(dataset, "state_dict") and hasattr(dataset, "load_state_dict")
        kind = _KINDS[is_stream, has_state]
        iterator._dataset = kind(dataset, loader.collate_fn, self._pass_seed)  # noqa: SLF001 - see above


class _Wrapped:
    """A dataset in a worker of a foreign loader."""

    def __init__(self, dataset: Any, collate: Any, pass_seed: torch.Tensor) -> None:
        self.__dict__.update(
            _dataset=dataset, _collate=collate, _pass_seed=pass_seed, _streams=None, _found_in=None
        )

    def _seed(self, number: int) -> None:
        if torch.utils.data.get_worker_info() is None:
            return
        if self.__dict__["_found_in"] != os.getpid():
            ignore_drain_signals()  # they were blocked when the worker was made
            end_with_parent()
            found = find_generators(dataset=self._dataset, collate_fn=self._collate)
            self.__dict__.update(_streams=OwnStreams(found.by_path), _found_in=os.getpid())
        self.__dict__["_streams"].seed(derive_seed(int(self._pass_seed), number))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_dataset" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.__dict__["_dataset"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_dataset"], name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_streams": None, "_found_in": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class SeededItems(_Wrapped, Dataset[Any]):
    """A map-style dataset that fetches a batch under a seed of the pass and the batch's indices."""

    def __getitem__(self, index: Any) -> Any:
        self._seed(_number(index))
        return self._dataset[index]

    def __getitems__(self, indices: Any) -> Any:
        self._seed(_number(indices))
        fetch_many = getattr(self._dataset, "__getitems__", None)
        return fetch_many(indices) if fetch_many else [self._dataset[index] for index in indices]


class SeededStream(_Wrapped, IterableDataset[Any]):
    """An iterable dataset that begins under a seed of the pass and the worker's number."""

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        self._seed(info.id if info is not None else 0)
        return iter(self._dataset)


class _WithState:
    """Forwards the state of the dataset: whether there is one is looked up in the class."""

    def state_dict(self) -> Any:
        """Return the state of the dataset."""
        return self.__dict__["_dataset"].state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Put the dataset into a former state."""
        self.__dict__["_dataset"].load_state_dict(state)


class SeededItemsWithState(_WithState, SeededItems):
    """As `SeededItems`, of a dataset with a state."""


class SeededStreamWithState(_WithState, SeededStream):
    """As `SeededStream`, of a dataset with a state."""


_KINDS: Final = {
    (False, False): SeededItems,
    (False, True): SeededItemsWithState,
    (True, False): SeededStream,
    (True, True): SeededStreamWithState,
}


def _number(indices: Any) -> int:
    return xxhash.xxh3_64_intdigest(repr(indices).encode("utf-8", "surrogatepass"))


class _Active(threading.local):
    loaders: ForeignLoaders | None = None


_active: Final = _Active()


@functools.cache
def _install() -> None:
    base = getattr(dataloader, "_BaseDataLoaderIter", None)
    if base is None:
        return
    init = base.__init__

    @functools.wraps(init)
    def begin(iterator: Any, loader: Any) -> None:
        if _active.loaders is None:
            init(iterator, loader)
        else:
            _active.loaders.begin(iterator, loader, init)

    base.__init__ = begin
