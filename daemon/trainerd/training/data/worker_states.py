"""What reading has changed in each worker of a loader, as far as the batches that were taken tell.

Batch ``b`` of a pass is read by worker ``b % count``. So what worker ``w`` was like after ``done`` batches is
what it sent last with one of its batches before ``done``, and nothing depends on how far it read ahead.

An attempt that goes on in the middle of a pass has workers that begin at another batch: worker 0 reads the
first batch that is left. It takes the place, the number and the seed of the one that would have read it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import starmap
from typing import Any, Final, Self

from trainerd.contract.counted import counted
from trainerd.contract.verdict import Reason
from trainerd.training.data.read_caches import LostCache
from trainerd.training.data.worker_watch import ToldBatch

_BEHIND_MAX: Final = 8
"""A boundary that is saved may be so many batches behind the last one that was taken."""


class WorkerStates:
    """What the workers of one loader have told.

    Args:
        count: How many workers there are.
        persist: Whether they live on from pass to pass.
        suspect: Takes in what cannot be given to another worker.
        dataset: Name of the dataset's class.
    """

    def __init__(self, count: int, *, persist: bool, suspect: Callable[[Reason], None], dataset: str) -> None:
        self._count = count
        self._persist = persist
        self._suspect = suspect
        self._dataset = dataset
        self._before: dict[int, bytes] = {}
        self._told: dict[int, list[tuple[int, bytes]]] = {}
        self._unsaved: set[str] = set()
        self._caches: dict[str, LostCache] = {}
        self._is_begun = False

    def begin(self, saved: Mapping[str, Any] | None, done: int) -> None:
        """The next pass trains, and `done` of its batches are done."""
        self._is_begun = True
        if not saved:
            return
        self._report(saved["unsaved"])
        self._report_caches(starmap(LostCache, saved.get("caches", ())))
        states = saved["states"]
        if not states:
            return
        if saved["count"] != self._count:
            kept = counted(
                saved["count"], "worker kept values of its own", "workers kept values of their own"
            )
            self._suspect(
                Reason(
                    "workers-changed",
                    self._dataset,
                    f"{kept} that reading changed, and num_workers is {self._count} now",
                    f"num_workers={saved['count']}, or keep nothing in __getitem__",
                )
            )
            return
        if done or self._persist:
            self._told = {}
            self._before = {int(worker): pickle.dumps(state) for worker, state in states.items()}

    def begin_pass(self, start: int, *, trains: bool) -> dict[int, bytes]:
        """Return what the first batches of a pass that begins give back to their workers, by batch."""
        if self._persist:
            self._before = self._after(None)
        elif not (trains and self._is_begun and start):
            self._before = {}
        self._told, self._is_begun = {}, False
        states = {batch: self._before.get(batch % self._count) for batch in range(start, start + self._count)}
        return {batch: state for batch, state in states.items() if state}

    def take(self, number: int, told: ToldBatch) -> None:
        """Take in what a worker told with a batch."""
        self._report(told.unsaved)
        self._report_caches(told.caches)
        known = self._told.setdefault(number % self._count, [])
        while len(known) > 1 and known[1][0] < number - self._count - _BEHIND_MAX:
            del known[0]
        known.append((number, told.state))

    def saved(self, done: int | None) -> dict[str, Any]:
        """Return what a checkpoint holds after `done` batches of the pass that trains."""
        states = self._after(done) if done or self._persist else {}
        if not (states or self._unsaved or self._caches):
            return {}
        caches = {"caches": list(map(list, self._caches.values()))} if self._caches else {}
        return caches | {
            "count": self._count,
            "states": {str(w): pickle.loads(state) for w, state in sorted(states.items()) if state},  # noqa: S301 - of our own workers
            "unsaved": sorted(self._unsaved),
        }

    def _after(self, done: int | None) -> dict[int, bytes]:
        last = {
            worker: state
            for worker, known in self._told.items()
            for number, state in known
            if not done or number < done
        }
        return self._before | last

    def _report(self, paths: Any) -> None:
        for path in paths:
            self._unsaved.add(path)
            self._suspect(
                Reason(
                    "dataset-changed-in-worker",
                    path,
                    f"reading samples of {self._dataset} changes this in a worker, and its copy is lost, "
                    "and no checkpoint can hold it",
                    "let __getitem__ depend on the index alone, or keep numbers, lists and dicts of them",
                )
            )

    def _report_caches(self, caches: Iterable[LostCache]) -> None:
        for each in caches:
            self._caches[each.path] = each
            self._suspect(each.reason)


class WorkerBatches:
    """The batches of workers, without what they tell. No generator: an interrupted wait may go on.

    Args:
        batches: Of the loader.
        take: Gets the number of a batch and what was told with it.
        start: Number of the first batch.
    """

    def __init__(self, batches: Iterator[Any], take: Callable[[int, ToldBatch], None], start: int) -> None:
        self._batches = batches
        self._take = take
        self._number = start

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        batch = next(self._batches)
        if type(batch) is ToldBatch:
            self._take(self._number, batch)
            batch = batch.batch
        self._number += 1
        return batch
