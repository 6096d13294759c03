"""The order in which `DistributedDataParallel` reduces gradients, as a part of the state of a run.

DDP packs gradients into buckets in the order of the parameters for its first step, and in the order in which
the gradients arrived in that step from then on. Where an element stands in a bucket decides in which order
three or more ranks add what each has of it, and so its last bits. A new process would begin with the layout
of a first step; so the order belongs to a checkpoint, and a resume puts it back.

Invariants:
    An undisturbed run is not changed: the order is observed by hooks that return nothing, and these are
    removed once it is known.
    A reducer is replaced between two steps, on all ranks of its process group or on none.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trainerd.training.state import ddp_reducer
from trainerd.training.state.comm_hooks import HookStates
from trainerd.training.state.optimizer_names import named_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.nn.parallel import DistributedDataParallel

    from trainerd.training.state.tracked import Objects


@dataclass(frozen=True)
class SavedOrder:
    """What a checkpoint says of one replica.

    Attributes:
        names: Names of the parameters that it reduces.
        order: The same in the order of the buckets. None if the next step shows it, and if it is unknown.
        is_known: Whether the order is known, or the next step shows it.
    """

    names: tuple[str, ...]
    order: tuple[str, ...] | None
    is_known: bool = True


class WatchedReplica:
    """One replica and the order of its buckets.

    Args:
        replica: Which one.
        names: Name of each tracked parameter, by its id.
        is_seen_from_start: Whether all its steps in this process are observed.

    Attributes:
        names: Names of its parameters, in its own order.
        hook_states: States of its communication hooks.
    """

    def __init__(
        self, replica: DistributedDataParallel, names: dict[int, str], *, is_seen_from_start: bool
    ) -> None:
        self._replica = weakref.ref(replica)
        self._parameters, self._is_sparse = ddp_reducer.reduced_parameters(replica)
        self.names = tuple([names.get(id(each), f"#{index}") for index, each in enumerate(self._parameters)])
        self._of_reducer = self.names  # what the reducer's own numbers stand for
        self._is_seen_from_start = is_seen_from_start
        self._arrivals: dict[int, int] = {}
        self._order: tuple[str, ...] | None = None
        self._is_late = False
        self.hook_states = HookStates(replica)
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                _noting(weakref.ref(self), index)
            )
            for index, parameter in enumerate(self._parameters)
            if parameter.requires_grad
        ]

    @property
    def is_alive(self) -> bool:
        """Whether the replica still exists."""
        return self._replica() is not None

    @property
    def replica(self) -> DistributedDataParallel:
        """The replica, which must exist."""
        replica = self._replica()
        assert replica is not None, "asked for while it exists"
        return replica

    @property
    def leader(self) -> int:
        """Rank whose order all ranks of its process group take, as DDP has it."""
        return int(torch.distributed.get_process_group_ranks(self.replica.process_group)[0])

    @property
    def matters(self) -> bool:
        """Whether another order could give other bits: two ranks add a + b, or b + a."""
        is_reordered = self.replica.static_graph or not self.replica.find_unused_parameters
        is_large = torch.distributed.get_world_size(self.replica.process_group) > 2
        return is_reordered and (is_large or ddp_reducer.has_hooks(self.replica))

    # ------------------------------------------------------------------ observing

    def note(self, index: int) -> None:
        """A gradient has arrived."""
        replica = self._replica()
        if replica is None or self._order is not None or ddp_reducer.has_rebuilt(replica):
            return
        if ddp_reducer.is_reducing(replica):
            self._arrivals[index] = self._arrivals.pop(index, 0) + 1

    def saved(self) -> SavedOrder | None:
        """Return what a checkpoint of this boundary says of it, None if there is nothing to say."""
        replica = self.replica
        is_rebuilt = ddp_reducer.has_rebuilt(replica)
        if is_rebuilt or self._order is not None:
            self._order = self._logged() or self._order
            if self._order is None and self._is_seen_from_start:
                self._order = self._arrived()
            self._stop_observing()
            return SavedOrder(self.names, self._order, is_known=self._order is not None)
        if replica.find_unused_parameters and not replica.static_graph:
            return None  # never rebuilt
        if not self._is_seen_from_start:
            return SavedOrder(self.names, None, is_known=False)
        if not self._arrivals:
            return None
        passes = set(self._arrivals.values())
        if replica.static_graph and passes == {1}:
            return SavedOrder(self.names, None)  # its second step counts, not the first
        if replica.static_graph and passes != {2}:
            return SavedOrder(self.names, None, is_known=False)
        return SavedOrder(self.names, self._arrived())

    def _arrived(self) -> tuple[str, ...] | None:
        """Return the order of the arrivals. Parameters without one come first, as DDP marks them first."""
        if not self._arrivals:
            return None
        missing = [index for index in range(len(self.names)) if index not in self._arrivals]
        return tuple([self.names[index] for index in [*missing, *self._arrivals]])

    def _logged(self) -> tuple[str, ...] | None:
        numbers = ddp_reducer.logged_order(self.replica) or []
        if sorted(numbers) != list(range(len(self._of_reducer))):
            return None
        return tuple([self._of_reducer[number] for number in numbers])

    def _stop_observing(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    # ------------------------------------------------------------------ putting back

    def why_not(self, saved: SavedOrder) -> str | None:
        """Return why the saved order cannot be put back, None if it can."""
        if not saved.is_known:
            return "the checkpoint does not know in which order the gradients were reduced"
        if lacking := ddp_reducer.missing_in(self.replica):
            return f"torch {torch.__version__} has no {lacking}"
        if ddp_reducer.uses_compiled_autograd(self.replica):
            return "compiled autograd reduces the gradients"
        if self._arrivals or not self._is_seen_from_start or ddp_reducer.has_rebuilt(self.replica):
            return "it made a backward pass before the state was restored"
        if sorted(saved.order or saved.names) != sorted(self.names):
            return "it reduces other parameters than before"
        return None

    def put_back(self, saved: SavedOrder) -> None:
        """Put the saved order in force. All ranks of its process group do so at the same moment.

        Raises:
            BucketOrderError: torch does not do it.
        """
        if saved.order is None:
            self._is_late = True
        else:
            self._put_in_order(saved.order, rebuilds_now=True)

    def catch_up(self) -> None:
        """Put the order in force that the step just made has shown, if the saved one was to be shown by it.

        Raises:
            BucketOrderError: torch does not do it.
        """
        if not self._is_late:
            return
        self._is_late = False
        order = self._arrived()
        if order is not None and not ddp_reducer.has_rebuilt(self.replica):
            self._put_in_order(order, rebuilds_now=False)

    def _put_in_order(self, order: tuple[str, ...], *, rebuilds_now: bool) -> None:
        numbers = [self.names.index(name) for name in order]
        ddp_reducer.replace_reducer(
            self.replica,
            [self._parameters[number] for number in numbers],
            [self._is_sparse[number] for number in numbers],
            rebuilds_now=rebuilds_now,
        )
        self._of_reducer = self._order = order
        self._stop_observing()


def _noting(watched: weakref.ReferenceType[WatchedReplica], index: int) -> Callable[[torch.Tensor], None]:
    """Return a hook that keeps nothing alive."""

    def note(parameter: torch.Tensor) -> None:
        del parameter
        if (this := watched()) is not None:
            this.note(index)

    return note


class BucketOrders:
    """The orders of all replicas whose parameters are tracked.

    Args:
        objects: What is tracked.

    Attributes:
        restored: What the checkpoint resumed from says. None if it says nothing: it is of an older version.
        unplaced: First parameters of the replicas whose communication hooks are not those of the checkpoint.
    """

    def __init__(self, objects: Objects) -> None:
        self.restored: list[dict[str, Any]] | None = None
        self.unplaced: list[str] = []
        self._objects = objects
        self._watched: list[WatchedReplica] = []

    def watch(self, *, is_start: bool) -> list[WatchedReplica]:
        """Find the replicas and observe them from now on; return the new ones.

        This goes through all objects of the process: it is for the beginning, not for every step.

        Args:
            is_start: Whether no step was made in this process.
        """
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return []
        known = {id(watched.replica) for watched in self.watched}
        names = {id(parameter): name for name, parameter in named_parameters(self._objects)}
        new = [
            WatchedReplica(replica, names, is_seen_from_start=is_start)
            for replica in tracked_replicas(self._objects, names)
            if id(replica) not in known
        ]
        self._watched = sorted([*self.watched, *new], key=lambda watched: watched.names)
        return new

    @property
    def watched(self) -> tuple[WatchedReplica, ...]:
        """The replicas that exist, in an order that is the same on all ranks."""
        return tuple([watched for watched in self._watched if watched.is_alive])

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what a checkpoint of this boundary says."""
        found = [saved for watched in self.watched if (saved := watched.saved()) is not None]
        return [_encoded(saved) for saved in found]

    def load_state_dict(self, state: list[dict[str, Any]] | None) -> None:
        """Take what a checkpoint says; it comes into force later, on all ranks at once."""
        self.restored = state

    def hook_states(self) -> dict[str, Any]:
        """Return the states of the communication hooks, by the first parameter of each replica."""
        found = {watched.names[0]: watched.hook_states.state_dict() for watched in self.watched}
        return {name: states for name, states in found.items() if states}

    def load_hook_states(self, state: dict[str, Any]) -> None:
        """Put back what `hook_states` returned."""
        live = {watched.names[0]: watched.hook_states for watched in self.watched}
        self.unplaced = [
            name for name, saved in state.items() if name not in live or not live[name].load_state_dict(saved)
        ]


def tracked_replicas(
    objects: Objects, names: dict[int, str] | None = None
) -> Iterator[DistributedDataParallel]:
    """Yield the replicas of this process that train tracked parameters. Goes through all objects.

    Args:
        objects: What is tracked.
        names: Name of each tracked parameter, by its id, if they are at hand.
    """
    if names is None:
        names = {id(parameter): name for name, parameter in named_parameters(objects)}
    for replica in ddp_reducer.replicas(objects.values()):
        if any(each.requires_grad and id(each) in names for each in replica.parameters()):
            yield replica


def _encoded(saved: SavedOrder) -> dict[str, Any]:
    """Return plain values. The names are left out where the order has them all."""
    if saved.order is not None:
        return {"order": list(saved.order)}
    return {"names": list(saved.names), "is_known": saved.is_known}


def decoded(state: list[dict[str, Any]]) -> tuple[SavedOrder, ...]:
    """Return what `BucketOrders.state_dict` returned."""
    return tuple(
        [
            SavedOrder(tuple(sorted(each["order"])), tuple(each["order"]))
            if "order" in each
            else SavedOrder(tuple(each["names"]), None, is_known=each["is_known"])
            for each in state
        ]
    )
