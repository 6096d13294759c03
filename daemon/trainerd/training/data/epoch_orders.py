"""The orders of a loader's passes: drawn once each, saved where the seed does not decide them, and put back.

Two passes are kept: that which trains, and one that evaluates in the middle of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainerd.contract.verdict import Reason
from trainerd.errors import UnsupportedValueError
from trainerd.training.data.batch_requests import RankOrder, length_of
from trainerd.training.data.lazy_order import LazyOrder
from trainerd.training.data.loader_memory import LoaderMemory
from trainerd.training.data.loader_view import LoaderView
from trainerd.training.data.order import (
    GlobalOrder,
    batch_order,
    is_function_of_seed,
    sharded_order,
    shards_itself,
    told_epoch,
)
from trainerd.training.data.packed_order import ObjectOrder, PackedOrder, RemainingOrder, restored
from trainerd.training.data.passes import Pass
from trainerd.training.data.read_caches import ReadCaches
from trainerd.training.data.seeds import derive_seed
from trainerd.training.data.sharding import ShardPlan
from trainerd.training.state.tensor_layouts import TensorTable
from trainerd.training.state.tensors import encode_state


class EpochOrders:
    """The orders of one loader.

    Args:
        view: The parts of the loader.
        seed: Of the session.
        memory: What the loader remembers.
        suspect: Takes in a known cause of inexactness.

    Attributes:
        caches: Cached functions of the sampler.
    """

    def __init__(
        self, view: LoaderView, memory: LoaderMemory, *, seed: int, suspect: Callable[[Reason], None]
    ) -> None:
        self._view = view
        self._seed = seed
        self._memory = memory
        self._suspect = suspect
        self._orders: dict[bool, tuple[Pass, GlobalOrder]] = {}
        self._asked: tuple[Pass, int | None] | None = None
        self._trains_next = False
        self._saved: Mapping[str, Any] = {}
        self._at_beginning: dict[str, Any] = {}
        roots = {"sampler": view.sampler, "batch_sampler": view.batch_sampler}
        self.caches = ReadCaches(roots, of_functions=True)

    def begin(self, saved: Mapping[str, Any], done: int) -> None:
        """The next pass whose order is asked for trains, and `done` of its batches are done."""
        self._trains_next = True
        self._saved = saved if done else {}
        self._memory.put_back(
            saved.get("memory_at_beginning" if self._saved.get("drawn") else "memory", {}), is_inside=done > 0
        )

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Put back what is remembered between two passes, whatever the code before has done."""
        self._memory.put_back(saved.get("memory", {}), is_inside=True)

    def saved(self, done: int | None) -> dict[str, Any]:
        """Return what a checkpoint must hold after `done` batches of the pass that trains."""
        tree: dict[str, Any] = {}
        if changes := self._memory.saved():
            tree["memory"] = changes
        if not done or True not in self._orders:
            return tree
        which, order = self._orders[True]
        start = _done_of_all(which.plan, done, shards_itself=shards_itself(self._view))
        if isinstance(order, LazyOrder):
            tree["drawn"] = order.drawn_to(start)
            if self._at_beginning:
                tree["memory_at_beginning"] = self._at_beginning
        elif (
            isinstance(order, PackedOrder | ObjectOrder | RemainingOrder)
            and not is_function_of_seed(self._view)
            and self._can_be_held(order, start)
        ):
            tree["order"] = order.remaining(start) | {"start": start, "shards": self._shards(which)}
        return tree

    def order(self, which: Pass) -> RankOrder:
        """Return the batches of a pass."""
        return self._shared(which, self._global_order(which))

    def length(self, which: Pass) -> int | None:
        """Return how many batches a pass has. To ask for that changes nothing, before the pass and after it.

        A progress bar asks in each attempt, also in one that goes on in the middle of the pass.
        """
        is_known = any(known == which for known, _ in self._orders.values())
        if is_known or self._trains_next or is_function_of_seed(self._view):
            return length_of(self.order(which))
        if self._asked is None or self._asked[0] != which:
            with self._memory.unchanged():
                self._asked = (which, length_of(self._shared(which, self._drawn(which))))
        return self._asked[1]

    def _drawn(self, which: Pass) -> GlobalOrder:
        return batch_order(
            self._view,
            seed=derive_seed(self._seed, *which.place),
            epoch=which.epoch,
            is_sharded_here=which.plan is not None and not shards_itself(self._view),
        )

    def _shared(self, which: Pass, order: GlobalOrder) -> RankOrder:
        return order if which.plan is None else sharded_order(self._view, order, which.plan)

    def _global_order(self, which: Pass) -> GlobalOrder:
        for known, order in self._orders.values():
            if known == which:
                return order
        trains, self._trains_next = self._trains_next, False
        saved, self._saved = (self._saved, {}) if trains else ({}, self._saved)
        left = self._remaining(which, saved["order"]) if "order" in saved else None
        found: GlobalOrder
        if left is not None:
            found = left
        else:
            if trains:
                self._at_beginning = self._memory.saved()
            with self.caches.reading(0, list(self._memory.generators.values())):
                found = self._drawn(which)
        if "drawn" in saved:
            self._expect(found, saved["drawn"])
        self._orders[trains] = (which, found)
        return found

    def _remaining(self, which: Pass, saved: Mapping[str, Any]) -> RemainingOrder | None:
        """Return the order that a checkpoint holds, None if it is another rank's."""
        if saved["shards"] != self._shards(which):
            self._suspect(
                Reason(
                    "order-of-another-rank",
                    self._name,
                    "the sampler shards by itself, and the number of ranks has changed within an epoch",
                    "let the session shard: give the loader a sampler without ranks",
                )
            )
            return None
        told_epoch(self._view, which.epoch)
        return RemainingOrder(restored(saved), saved["start"])

    def _expect(self, order: GlobalOrder, drawn: Mapping[str, Any]) -> None:
        reason = Reason(
            "sampler-not-repeatable",
            self._name,
            "drawn again, this sampler without an end gave other samples than before the checkpoint",
            "draw from random generators that are its attributes, and from nothing else that changes",
        )
        if isinstance(order, LazyOrder):
            order.expect(drawn, lambda: self._suspect(reason))
        else:
            self._suspect(reason)

    def _can_be_held(self, order: PackedOrder | ObjectOrder | RemainingOrder, start: int) -> bool:
        if not order.needs_check:
            return True
        try:
            encode_state(order.remaining(start), TensorTable(takes_shards=False), root="order")
        except UnsupportedValueError as error:
            self._suspect(
                Reason(
                    "order-not-saved",
                    self._name,
                    f"a checkpoint cannot hold the indices that it yields: {error}",
                    "yield numbers, strings or tuples of them",
                )
            )
            return False
        return True

    def _shards(self, which: Pass) -> list[int]:
        if which.plan is None or not shards_itself(self._view):
            return []
        return [which.plan.rank, which.plan.world_size]

    @property
    def _name(self) -> str:
        sampler = self._view.batch_sampler if self._view.batch_sampler is not None else self._view.sampler
        inner = getattr(sampler, "sampler", sampler)
        kind = type(inner if type(sampler).__module__.partition(".")[0] == "torch" else sampler)
        return f"{kind.__module__}.{kind.__qualname__}"


def _done_of_all(plan: ShardPlan | None, done: int, *, shards_itself: bool) -> int:
    """Return how many batches of the order of all ranks are used up once each rank has had `done`."""
    if plan is None or shards_itself:
        return done
    return plan.resharded_after + (done - plan.resharded_at) * plan.world_size
