"""Where batches come from: a source gives the batches of an epoch from any position on.

=======================  ===========================================================================
what the user passes     how it is resumed
=======================  ===========================================================================
stock map-style loader   `MapSource`: order and sample randomness are functions of (seed, epoch,
                         batch), so it begins at the batch, and loads nothing to skip it
has ``state_dict``       `StatefulSource`: through its own state
any other iterable       `IterableSource`: skipped by consumption, said once
=======================  ===========================================================================
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, cast

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from trainerd.training.data.batch_wait import WaitInterruptedError, interruptible
from trainerd.training.data.order import batch_order, sharded_order
from trainerd.training.data.purity import draws_nothing
from trainerd.training.data.seeds import derive_seed, folded
from trainerd.training.data.sharding import OwnShardedOrder, ShardedOrder, ShardPlan
from trainerd.training.data.workers import WorkerStart, drain_signals_blocked
from trainerd.training.state.rng import isolated_cpu_generators, seed_cpu_generators

_SAMPLE: Final = 0x73616D70  # keeps the seeds of the samples apart from those of the order


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
    """

    is_idle_at_boundary: bool

    def length(self, which: Pass) -> int | None:
        """Return how many batches the pass has, None if that is not known."""
        ...

    def extent(self) -> dict[str, int]:
        """Return what must not change in the middle of a pass.

        ``samples`` and ``batch_size``, as far as known.
        """
        ...

    def iterate(self, which: Pass, start: int, is_draining: Callable[[], bool]) -> Iterator[Any]:
        """Yield the batches of the pass from number `start` on.

        Raises:
            WaitInterruptedError: `is_draining` came true during the wait for a batch.
        """
        ...


class _Request(NamedTuple):
    """What a fetch is asked for: a batch's indices, and the seed of its randomness."""

    seed: int
    indices: Any


class _SeededFetch(Dataset[Any]):
    """Fetches and collates a whole batch under a seed of its own.

    So what random transforms draw depends on (seed, epoch, batch) and on nothing that happened before: not on
    the number of workers, nor on which of them got the batch, nor on where the attempt began.
    """

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], *, is_batched: bool) -> None:
        self.dataset = dataset
        self._collate = collate
        self._is_batched = is_batched
        self._draws_nothing = draws_nothing(dataset, collate)
        self._fetch_many = getattr(dataset, "__getitems__", None) if is_batched else None

    def __getitem__(self, request: _Request) -> Any:
        if self._draws_nothing:
            return self._fetch(request.indices)
        if torch.utils.data.get_worker_info() is not None:
            seed_cpu_generators(request.seed)
            return self._fetch(request.indices)
        with isolated_cpu_generators(request.seed):
            return self._fetch(request.indices)

    def _fetch(self, indices: Any) -> Any:
        if not self._is_batched:
            return self._collate(self.dataset[indices])
        if self._fetch_many:
            return self._collate(self._fetch_many(indices))
        dataset = self.dataset
        return self._collate([dataset[index] for index in indices])


class _Requests(Sampler[_Request]):
    """The requests of an epoch from a position on. Set anew for each epoch; the loader around it lives on."""

    def __init__(self) -> None:
        self._order: Sequence[Any] = ()
        self._start = 0
        self._seeds = 0
        self._indices: deque[Any] | None = None

    def point_at(self, order: Sequence[Any], start: int, seeds: int, indices: deque[Any] | None) -> None:
        self._order, self._start, self._seeds, self._indices = order, start, seeds, indices

    def __len__(self) -> int:
        return max(len(self._order) - self._start, 0)

    def __iter__(self) -> Iterator[_Request]:
        # Bound here, for an iterator made for one epoch must not follow the sampler into the next.
        order, seeds, noted = self._order, self._seeds, self._indices
        numbered = order.number if isinstance(order, ShardedOrder | OwnShardedOrder) else None
        for batch in range(self._start, len(order)):
            number = batch if numbered is None else numbered(batch)
            indices = order[batch]
            if noted is not None:
                noted.append(indices)
            yield _Request(folded(number, state=seeds) >> 1, indices)


def _as_it_is(batch: Any) -> Any:
    return batch


class MapSource:
    """A stock `DataLoader` over a map-style dataset, its order taken over."""

    is_idle_at_boundary = True

    def __init__(self, loader: DataLoader[Any], *, seed: int) -> None:
        self._user_loader = loader
        self._seed = seed
        self._requests = _Requests()
        self._generator = torch.Generator()
        self._order_of: tuple[Pass, Sequence[Any]] | None = None
        self._loader = self._inner_loader(loader)

    def _inner_loader(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        fetch = _SeededFetch(loader.dataset, loader.collate_fn, is_batched=loader.batch_sampler is not None)
        options: dict[str, Any] = {}
        if loader.num_workers > 0:
            options = {
                "prefetch_factor": loader.prefetch_factor,
                "persistent_workers": loader.persistent_workers,
                "multiprocessing_context": loader.multiprocessing_context,
                "worker_init_fn": WorkerStart(loader.worker_init_fn, loader.dataset),
                "timeout": loader.timeout,
            }
        return DataLoader(
            fetch,
            batch_size=None,
            sampler=self._requests,
            collate_fn=_as_it_is,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            generator=self._generator,  # or each epoch would draw a worker seed from the global one
            **options,
        )

    def length(self, which: Pass) -> int:
        return len(self._order(which))

    def extent(self) -> dict[str, int]:
        return _extent(self._user_loader.dataset, self._user_loader)

    def indices(self, which: Pass, batch: int) -> Any:
        """Return the indices of one batch, without loading it."""
        return self._order(which)[batch]

    def iterate(self, which: Pass, start: int, is_draining: Callable[[], bool]) -> Iterator[Any]:
        seeds = folded(self._seed, _SAMPLE, *which.place, which.epoch)
        self._requests.point_at(self._order(which), start, seeds, which.indices)
        self._generator.manual_seed(derive_seed(self._seed, *which.place, which.epoch))
        with drain_signals_blocked():
            iterator = iter(self._loader)
        return interruptible(iterator, is_draining) if self._user_loader.num_workers > 0 else iterator

    def _order(self, which: Pass) -> Sequence[Any]:
        if self._order_of is None or self._order_of[0] != which:
            seed = derive_seed(self._seed, *which.place)
            if which.plan is None:
                order = batch_order(self._user_loader, seed=seed, epoch=which.epoch)
            else:
                order = sharded_order(self._user_loader, which.plan, seed=seed, epoch=which.epoch)
            self._order_of = (which, order)
        return self._order_of[1]


class StatefulSource:
    """Something that knows its own position: used through ``state_dict`` and ``load_state_dict``.

    What it draws in this process, at its beginning and for each batch, comes from streams of their own: it
    begins anew with every attempt, and would otherwise draw once more than in a run that nobody disturbed.

    Attributes:
        is_spent_at_end: Whether a state from the end of a pass means that nothing is left, also for the next
            pass.
    """

    is_idle_at_boundary = False

    def __init__(self, loader: Any, *, seed: int) -> None:
        self._loader = loader
        self._seed = seed
        self.is_spent_at_end = any(kind.__module__.startswith("datasets.") for kind in type(loader).__mro__)

    def state_dict(self) -> Any:
        return self._loader.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self._loader.load_state_dict(state)

    def length(self, which: Pass) -> int | None:
        del which
        return _length_or_none(self._loader)

    def extent(self) -> dict[str, int]:
        return {}  # its own state knows how far it is in whatever it has

    def iterate(self, which: Pass, start: int, is_draining: Callable[[], bool]) -> Iterator[Any]:
        del is_draining
        for owner in (self._loader, getattr(self._loader, "dataset", None)):
            if owner is not None and hasattr(owner, "set_epoch"):
                owner.set_epoch(which.epoch)
        seeds = folded(self._seed, _SAMPLE, *which.place, which.epoch)
        with drain_signals_blocked(), isolated_cpu_generators(seeds >> 1):
            iterator = iter(self._loader)
        return self._batches(iterator, start, seeds)

    def _batches(self, iterator: Iterator[Any], start: int, seeds: int) -> Iterator[Any]:
        for batch in itertools.count(start):
            # A generator of a user's may start workers only now.
            with drain_signals_blocked(), isolated_cpu_generators(folded(batch, state=seeds) >> 1):
                try:
                    found = next(iterator)
                except StopIteration:
                    return
            yield found


class IterableSource:
    """Any other iterable. Begun anew for each epoch under a seed of its own, and skipped by consumption."""

    is_idle_at_boundary = True

    def __init__(self, iterable: Any, *, seed: int, warn: Callable[[str], None]) -> None:
        self._iterable = _reseeded_loader(iterable) if _is_stock_loader(iterable) else iterable
        self._seed = seed
        self._warn = warn

    def length(self, which: Pass) -> int | None:
        del which
        return _length_or_none(self._iterable)

    def extent(self) -> dict[str, int]:
        return _extent(getattr(self._iterable, "dataset", self._iterable), self._iterable)

    def iterate(self, which: Pass, start: int, is_draining: Callable[[], bool]) -> Iterator[Any]:
        if hasattr(self._iterable, "set_epoch"):
            self._iterable.set_epoch(which.epoch)
        generator = getattr(self._iterable, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(derive_seed(self._seed, *which.place, which.epoch))
        with drain_signals_blocked():
            iterator = iter(self._iterable)
        if start:
            self._warn(
                f"resuming at batch {start} of an iterable without a state of its own: "
                f"{start} batches are loaded and thrown away"
            )
            for _ in range(start):
                if is_draining():
                    raise WaitInterruptedError
                next(iterator, None)
        return iterator


def _reseeded_loader(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Copy a stock loader over an iterable dataset, with a generator of our own and workers that live on."""
    options: dict[str, Any] = {}
    if loader.num_workers > 0:
        options = {
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": loader.persistent_workers,
            "multiprocessing_context": loader.multiprocessing_context,
            "worker_init_fn": WorkerStart(loader.worker_init_fn, loader.dataset),
            "timeout": loader.timeout,
        }
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        drop_last=loader.drop_last,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        generator=torch.Generator(),
        **options,
    )


def source_for(loader: Any, *, seed: int, warn: Callable[[str], None]) -> Source:
    """Return the source for what the user passed to ``session.batches``.

    Args:
        loader: A `DataLoader`, something with a ``state_dict``, or any iterable that can be begun again.
        seed: Of the session.
        warn: Says something to the user once.
    """
    if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
        return StatefulSource(loader, seed=seed)
    if _is_stock_loader(loader) and not isinstance(loader.dataset, IterableDataset):
        return MapSource(loader, seed=seed)
    return IterableSource(loader, seed=seed, warn=warn)


def _is_stock_loader(loader: Any) -> bool:
    return isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__


def _extent(dataset: Any, loader: Any) -> dict[str, int]:
    found = {"samples": _length_or_none(dataset), "batch_size": getattr(loader, "batch_size", None)}
    return {name: number for name, number in found.items() if isinstance(number, int)}


def _length_or_none(sized: Any) -> int | None:
    try:
        return len(cast("Any", sized))
    except TypeError:
        return None
