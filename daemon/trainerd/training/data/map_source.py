"""Batches of a stock loader over a map-style dataset, from any position on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch.utils.data import DataLoader

from trainerd.contract.verdict import Reason
from trainerd.training.data.batch_requests import BatchRequests, RankOrder, numbered
from trainerd.training.data.batch_wait import interruptible
from trainerd.training.data.dataset_memory import DatasetMemory, FirstMarks
from trainerd.training.data.drawing import known_length
from trainerd.training.data.epoch_orders import EpochOrders
from trainerd.training.data.loader_memory import LoaderMemory
from trainerd.training.data.loader_view import LoaderView
from trainerd.training.data.made_late import PartsMadeLate, roots_of, without_roots
from trainerd.training.data.passes import SAMPLE, Pass
from trainerd.training.data.read_caches import LostCache
from trainerd.training.data.root_identity import kind_of
from trainerd.training.data.seeded_fetch import SeededFetch, as_it_is
from trainerd.training.data.seeds import derive_seed, folded
from trainerd.training.data.worker_states import WorkerBatches, WorkerStates
from trainerd.training.data.workers import WorkerStart, drain_signals_blocked

_WATCHED: Final = 3
"""So many batches of an attempt are looked at for what reading changes: a long list takes milliseconds."""
_END: Final = object()


class MapSource:
    """A stock `DataLoader` over a map-style dataset, its order taken over.

    Args:
        view: The parts of the loader.
        seed: Of the session.
        suspect: Takes in a known cause of inexactness.
        is_sharded_here: Whether each of several ranks gets its share of what the sampler yields; else it
            gets all that its own sampler yields.
        first: What the run has seen of datasets before.

    Attributes:
        is_sharded_here: As given.
    """

    is_idle_at_boundary = True
    ends_with_loader = False
    was_there = False
    ends_silently = False

    def __init__(
        self,
        view: LoaderView,
        *,
        seed: int,
        suspect: Callable[[Reason], None],
        is_sharded_here: bool = True,
        first: FirstMarks | None = None,
    ) -> None:
        self._view = view
        self._batch_size = view.batch_size
        self.is_sharded_here = is_sharded_here
        self._seed = seed
        self._suspect = suspect
        self._requests = BatchRequests()
        self._generator = torch.Generator()
        self._fetch = SeededFetch(
            view.dataset,
            view.collate_fn,
            is_batched=view.batch_sampler is not None,
            tells_changes=view.num_workers > 0,
            keeps_caches=view.num_workers == 0 or view.persistent_workers,
        )
        options = view.worker_options()
        self._worker_start: WorkerStart | None = options.get("worker_init_fn")
        self._workers = WorkerStates(
            view.num_workers,
            persist=view.persistent_workers,
            suspect=suspect,
            dataset=type(view.dataset).__qualname__,
        )
        self._loader = DataLoader(
            self._fetch,
            batch_size=None,
            sampler=self._requests,
            collate_fn=as_it_is,
            num_workers=view.num_workers,
            pin_memory=view.pin_memory,
            generator=self._generator,  # or each epoch would draw a worker seed from the global one
            **options,
        )
        parts = ("sampler", "batch_sampler", "dataset", "collate_fn", "generator")
        roots = {name: getattr(view, name) for name in parts}
        first = first or FirstMarks()
        self._made_late = PartsMadeLate(roots, first.parts, suspect)
        memory = LoaderMemory(roots, ("sampler", "batch_sampler"), first.samplers)
        self._memory = memory
        self._data = DatasetMemory({"dataset": view.dataset, "collate_fn": view.collate_fn}, suspect, first)
        self._data_at_beginning: dict[str, Any] = {}
        self._data_now: Mapping[str, Any] = {}
        self._trains_next = False
        self._to_watch = _WATCHED
        self._orders = EpochOrders(view, memory, seed=seed, suspect=suspect)
        for path in memory.unseedable:
            suspect(
                Reason(
                    "generator-without-state",
                    path,
                    "a generator of the operating system gives other numbers after a resume",
                    "use random.Random",
                )
            )

    def identity(self) -> str:
        view = self._view
        kinds = [kind_of(type(each)) for each in (view.dataset, view.sampler, view.batch_sampler)]
        return "|".join([*kinds, *self._data.identities.values(), str(self._batch_size)])

    def length(self, which: Pass) -> int | None:
        return self._orders.length(self._of_rank(which))

    def extent(self) -> dict[str, int]:
        return extent_of(self._view.dataset, self._view)

    def indices(self, which: Pass, batch: int) -> Any:
        """Return the indices of one batch, without loading it."""
        return next(numbered(self._order(which), batch))[1]

    def begin(self, saved: Mapping[str, Any] | None, done: int) -> None:
        saved = self._of_kept_parts(saved or {}, done)
        if done and "loader" in saved:
            self._suspect(
                Reason(
                    "loader-exchanged",
                    type(self._view.dataset).__qualname__,
                    "the checkpoint was made within a pass of a loader with a state of its own: the rest "
                    "of this pass has another order",
                    "resume from the end of an epoch, or with the loader that the checkpoint has",
                )
            )
        data = saved.get("data", {})
        # The order of the pass, and the copies of its workers, are of the dataset as the pass began.
        self._data.put_back(data.get("at_beginning" if done else "now", {}), is_inside=done > 0)
        self._data_now = data.get("now", {}) if done else {}
        self._trains_next = True
        self._workers.begin(saved.get("workers"), done)
        for each in saved.get("caches", ()):
            self._suspect(LostCache(*each).reason)
        self._suspect_workers_that_persist(data.get("now"))
        self._orders.begin(saved, done)

    def _of_kept_parts(self, saved: Mapping[str, Any], done: int) -> Mapping[str, Any]:
        """Return what was saved without that of parts which begin afresh with each epoch."""
        memory, data = saved.get("memory", {}), saved.get("data", {}).get("now", {})
        afresh = self._made_late.begin(saved, done, changed=roots_of(memory, data))
        if not afresh:
            return saved
        of_dataset = {"workers", "caches"} if "dataset" in afresh else set()
        return {key: part for key, part in saved.items() if key not in of_dataset} | {
            "memory": without_roots(memory, afresh),
            "data": {"now": without_roots(data, afresh), "at_beginning": {}},
        }

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Put back what is remembered between two passes, whatever the code before has done."""
        self._data.put_back(saved.get("data", {}).get("now", {}), is_inside=True)
        self._orders.put_back(saved)

    def generators(self) -> list[Any]:
        return list(self._memory.generators.values())

    def saved(self, done: int | None) -> dict[str, Any]:
        data = {"now": self._data.saved(), "at_beginning": self._data_at_beginning if done else {}}
        own: dict[str, Any] = {"data": data} if any(data.values()) else {}
        if workers := self._workers.saved(done):
            own["workers"] = workers
        captured = data["now"].get("changed", ())
        if lost := [*self._fetch.caches.lost(captured), *self._orders.caches.lost()]:
            own["caches"] = list(map(list, lost))
            for each in lost:
                self._suspect(each.reason)
        tree = self._orders.saved(done) | own
        return tree | self._made_late.saved(changed=roots_of(tree.get("memory", {}), data["now"]))

    def iterate(self, which: Pass, start: int, is_draining: Callable[[], bool]) -> Iterator[Any]:
        seeds = folded(self._seed, SAMPLE, *which.place, which.epoch)
        trains, self._trains_next = self._trains_next, False
        states = self._begin_workers(start, trains=trains)
        self._requests.point_at(self._order(which), start, seeds, which.indices, states)
        # Workers that persist are seeded once in a run, whichever pass an attempt begins with.
        of_workers = () if self._view.persistent_workers else (*which.place, which.epoch)
        self._generator.manual_seed(derive_seed(self._seed, *of_workers))
        found = self._fetch.find_generators()
        if trains:
            self._made_late.pass_begins(which.place)
            self._data_at_beginning = self._data.saved()
        with drain_signals_blocked():
            iterator = iter(self._loader)
        if trains:
            self._data.put_back(self._data_now, is_inside=True)
            self._data_now = {}
        if self._view.num_workers > 0:
            batches = interruptible(iterator, is_draining)
            is_kept = trains or self._view.persistent_workers
            return batches if self._fetch.draws_nothing else self._told(batches, start, is_kept=is_kept)
        return iterator if self._fetch.draws_nothing else self._watched(iterator, found)

    def _begin_workers(self, start: int, *, trains: bool) -> dict[int, bytes]:
        """Tell workers that begin whose place they take. Return what they get back, by batch."""
        if self._worker_start is None:
            return {}
        first = start % self._view.num_workers
        if self._worker_start.first != first:
            self.close()  # those that persist have taken other places
        self._worker_start.first = first
        return self._workers.begin_pass(start, trains=trains)

    def _told(self, batches: Iterator[Any], start: int, *, is_kept: bool) -> Iterator[Any]:
        return WorkerBatches(batches, self._workers.take if is_kept else lambda *_: None, start)

    def close(self) -> None:
        """End workers that persist."""
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None:
            with contextlib.suppress(Exception):  # torch's own way, under a private name
                iterator._shutdown_workers()  # noqa: SLF001 - without it they end when it is collected
            self._loader._iterator = None  # noqa: SLF001

    def _order(self, which: Pass) -> RankOrder:
        return self._orders.order(self._of_rank(which))

    def _of_rank(self, which: Pass) -> Pass:
        return which if self.is_sharded_here else replace(which, plan=None)

    def _watched(self, iterator: Iterator[Any], found: set[str]) -> Iterator[Any]:
        """Look at what the first batches change: generators that are made, attributes that are no state."""
        for number in range(_WATCHED):
            with self._data.reading() if self._to_watch > 0 else contextlib.nullcontext():
                batch = next(iterator, _END)
            self._to_watch -= 1
            if batch is _END:
                return
            yield batch
            del batch  # or it would be kept until the next one is asked for
            if number == 0:
                self._suspect_late_generators(found)
        yield from iterator

    def _suspect_late_generators(self, found: set[str]) -> None:
        for path in sorted(self._fetch.find_generators() - found):
            self._suspect(
                Reason(
                    "generator-made-while-loading",
                    path,
                    "this generator was made when the first batch was loaded, and not seeded by the session",
                    "make it in __init__",
                )
            )

    def _suspect_workers_that_persist(self, changes: Mapping[str, Any] | None) -> None:
        if changes and self._view.persistent_workers:
            self._suspect(
                Reason(
                    "dataset-changed",
                    next(iter(changes["first"])),
                    "the script changed this after the workers had started: they kept their copy, and those "
                    "of a resumed attempt start with the changed one",
                    "leave persistent_workers=True out, so that each epoch's workers see the change",
                )
            )


def extent_of(dataset: Any, loader: Any) -> dict[str, int]:
    """Return the length of a dataset and the batch size of its loader, as far as known."""
    found = {"samples": known_length(dataset), "batch_size": getattr(loader, "batch_size", None)}
    return {name: number for name, number in found.items() if isinstance(number, int)}
