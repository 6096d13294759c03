"""`exact`: a `DataLoader` whose batches are functions of (seed, epoch, batch), for loops that are not ours.

All of it lies in the dataset and the batch sampler. So it survives what frameworks do with a loader: they
build another loader from its parts, fetch ahead, skip the first batches, or give each rank a share of the
batches or of each batch.

Invariants:
    A sample carries the seed that belongs to its place in the epoch: a list of samples may be cut, joined or
    handed to another process, and what is drawn for it depends on nothing else.
    Nothing is drawn from the global generators of this process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple, cast

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Sampler

from trainerd.errors import UserError
from trainerd.training.data.batch_requests import numbered
from trainerd.training.data.drawing import known_length
from trainerd.training.data.loader_view import LoaderView, view_of
from trainerd.training.data.order import batch_order
from trainerd.training.data.passes import SAMPLE
from trainerd.training.data.read_note import ReadNote
from trainerd.training.data.seeded_fetch import BatchRequest, SeededFetch, as_it_is
from trainerd.training.data.seeds import derive_seed, folded
from trainerd.training.data.workers import drain_signals_blocked

_EXACT: Final = 0x65786163
"""Keeps the seeds of these loaders apart from those of a session's loops."""


class SeededSample(NamedTuple):
    """Index of a sample, with the seed that belongs to its place in the epoch."""

    seed: int
    index: Any


class ExactEpoch:
    """Which epoch the next pass is, shared by the samplers and all that were built from them.

    Until an epoch is set, each pass is the next one. From then on it stays until it is set again, as with
    `torch.utils.data.DistributedSampler`.
    """

    def __init__(self) -> None:
        self._next = 0
        self._start = 0
        self._is_set = False

    def set(self, epoch: int, *, start: int = 0) -> None:
        self._next, self._is_set, self._start = epoch, True, start

    def begin(self) -> tuple[int, int]:
        """A pass begins: return its epoch, and the batch at which it begins."""
        epoch, start = self._next, self._start
        self._start = 0
        if not self._is_set:
            self._next += 1
        return epoch, start


class ExactBatches(BatchSampler):
    """The batches of a loader's epoch, each sample with its seed."""

    def __init__(self, view: LoaderView, seed: int, epoch: ExactEpoch, length: Any) -> None:
        self.batch_size = view.batch_size if view.batch_size is not None else 1
        self.drop_last = view.drop_last
        self.sampler = ExactSamples(self)
        self._view = view
        self._seed = seed
        self._epoch = epoch
        self._length = length

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the passes that begin from here on."""
        self._epoch.set(epoch)

    def __len__(self) -> int:
        return len(self._length)

    def __iter__(self) -> Iterator[list[Any]]:
        epoch, start = self._epoch.begin()
        yield from self.seeded(epoch, start)

    def seeded(self, epoch: int, start: int) -> Iterator[list[Any]]:
        """Yield the batches of an epoch from number `start` on."""
        order = batch_order(self._view, seed=derive_seed(self._seed, _EXACT), epoch=epoch)
        seeds = folded(self._seed, SAMPLE, _EXACT, epoch)
        for number, batch in numbered(order, start):
            state = folded(number, state=seeds)
            samples = batch if self._view.batch_sampler is not None else [batch]
            yield [
                SeededSample(folded(place, state=state) >> 1, index) for place, index in enumerate(samples)
            ]


class ExactSamples(Sampler[Any]):
    """The same, one sample after the other; frameworks set the epoch here."""

    def __init__(self, batches: ExactBatches) -> None:
        self._batches = batches

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the passes that begin from here on."""
        self._batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._batches._view.sampler)  # noqa: SLF001 - the other half of it

    def __iter__(self) -> Iterator[Any]:
        for samples in self._batches:
            yield from samples


class ExactDataset(Dataset[Any]):
    """Fetches and collates samples under their seed.

    Everything else is the dataset's own.
    """

    def __init__(self, view: LoaderView, epoch: ExactEpoch) -> None:
        self.dataset = view.dataset
        self.read_note = ReadNote(view.dataset, is_shared=view.num_workers > 0)
        self._epoch = epoch
        self._fetch = SeededFetch(view.dataset, view.collate_fn, is_batched=view.batch_sampler is not None)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the passes that begin from here on.

        Accelerate sets it here where its own samplers hide ours: within an epoch that was resumed on several
        ranks.
        """
        self._epoch.set(epoch)
        own = getattr(self.dataset, "set_epoch", None)
        if own is not None:
            own(epoch)

    def __getitems__(self, samples: list[Any]) -> Any:
        first = samples[0]
        if not isinstance(first, SeededSample):
            fetch_many = getattr(self.dataset, "__getitems__", None)
            return fetch_many(samples) if fetch_many else [self.dataset[index] for index in samples]
        return self._noted(BatchRequest(first.seed, [sample.index for sample in samples]))

    def __getitem__(self, sample: Any) -> Any:
        if not isinstance(sample, SeededSample):
            return self.dataset[sample]
        return self._noted(BatchRequest(sample.seed, sample.index))

    def _noted(self, request: BatchRequest) -> Any:
        self.read_note.before_reading()
        batch = self._fetch[request]
        self.read_note.after_reading()
        return batch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "dataset" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.__dict__["dataset"], name)


class IdleGenerator(torch.Generator):
    """Generator from which a `DataLoader` draws a seed that decides nothing: each sample has its own."""


class ExactLoader(DataLoader[Any]):
    """A `DataLoader` whose batches are functions of (seed, epoch, batch). Made by `exact`.

    Attributes:
        source_view: Parts of the loader that it was made from.
    """

    source_view: LoaderView
    _epoch: ExactEpoch

    @property
    def read_note(self) -> ReadNote:
        """What reading samples has changed."""
        return cast("ExactDataset", self.dataset).read_note

    def begin_at(self, epoch: int, batch: int = 0) -> None:
        """Let the next pass be that of `epoch`, from number `batch` on: nothing is loaded to skip the rest.

        Later passes are of the same epoch from its beginning, until another epoch is set.
        """
        self._epoch.set(epoch, start=batch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the passes that begin from here on."""
        self._epoch.set(epoch)

    def _get_iterator(self) -> Any:
        with drain_signals_blocked():
            return super()._get_iterator()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in {"source_view", "_epoch"}:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


def exact(loader: DataLoader[Any], seed: int = 0) -> ExactLoader:
    """Return a `DataLoader` like this one, whose batches are functions of (seed, epoch, batch).

    The order of the samples, what the dataset draws for them and what the collate function draws depend on
    nothing else: not on the number of workers, nor on what was fetched before. It may be skipped into,
    fetched ahead of, and sharded.

    Args:
        loader: A `DataLoader` of a map-style dataset.
        seed: Of the order and of all that is drawn.

    Raises:
        UserError: The loader's dataset is an iterable, or its sampler has no end.
    """
    if isinstance(loader, ExactLoader):
        return exact_of(loader.source_view, seed)
    if not isinstance(loader, DataLoader):
        raise UserError(
            f"exact() takes a DataLoader, and this is a {type(loader).__qualname__}",
            hint="pass the loader before a framework has prepared it",
        )
    if isinstance(loader.dataset, IterableDataset):
        raise UserError(
            f"exact() needs a dataset with indices, and {type(loader.dataset).__qualname__} is an iterable",
            hint="use session.batches(loader), which goes on with iterables too",
        )
    return exact_of(view_of(loader), seed)


def exact_of(view: LoaderView, seed: int) -> ExactLoader:
    """Return the exact loader of a view."""
    sampler = view.batch_sampler if view.batch_sampler is not None else view.sampler
    if known_length(sampler) is None:
        raise UserError(
            f"exact() needs a sampler with a length, and {type(sampler).__qualname__} has none",
            hint="give it __len__, or use session.batches(loader)",
        )
    epoch = ExactEpoch()
    batches = ExactBatches(view, seed, epoch, sampler)
    is_batched = view.batch_sampler is not None
    order: dict[str, Any] = (
        {"batch_sampler": batches} if is_batched else {"batch_size": None, "sampler": batches.sampler}
    )
    loader = ExactLoader(
        ExactDataset(view, epoch),
        **order,
        collate_fn=as_it_is,
        num_workers=view.num_workers,
        pin_memory=view.pin_memory,
        generator=IdleGenerator().manual_seed(derive_seed(seed, _EXACT)),
        **view.worker_options(),
    )
    loader.source_view = view
    loader._epoch = epoch  # noqa: SLF001 - made here
    return loader
