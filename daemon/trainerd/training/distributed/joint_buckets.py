"""Putting the order of DDP's buckets back on all ranks, or on none.

A rank with another order than the others would add gradients of different parameters. So every rank says
first whether it can, and takes the order that the first rank of the replica's process group has saved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trainerd.contract.verdict import Reason
from trainerd.errors import UserError
from trainerd.training.state.ddp_buckets import decoded
from trainerd.training.state.ddp_reducer import BucketOrderError, takes_uneven_inputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.state.ddp_buckets import BucketOrders, SavedOrder, WatchedReplica

KIND = "ddp-bucket-order"
_WRAP_FIRST = "make the DistributedDataParallel before session.resume() and the first loop"
_HOOK_FIRST = "register the same hooks before session.resume() and the first loop"
_UNKNOWN = "the checkpoint is of a version that did not save the order in which gradients are reduced"


class JointBuckets:
    """The bucket orders of one attempt.

    Args:
        ranks: This rank and the others, None if there are none.
        orders: The orders of this rank.
        suspect: Takes a reason for which the resume may not be exact.
    """

    def __init__(self, ranks: Ranks | None, orders: BucketOrders, suspect: Callable[[Reason], None]) -> None:
        self._ranks = ranks
        self._orders = orders
        self._suspect = suspect
        self._is_resumed = False
        self._is_first_step = ranks is not None

    def watch(self) -> None:
        """Find the replicas, before anything is restored."""
        if self._ranks is not None:
            self._orders.watch(is_start=True)

    def put_back(self, *, step: int) -> None:
        """Put the restored orders in force. Every rank's state was restored.

        Args:
            step: Steps finished at the checkpoint, 0 if there was none.
        """
        if self._ranks is None or step == 0:
            return
        self._is_resumed = True
        for name in self._orders.unplaced:
            detail = "its communication hooks are not those of the checkpoint: their state is not restored"
            self._suspect(
                Reason("ddp-comm-hook", f"DistributedDataParallel of {name}, …", detail, _HOOK_FIRST)
            )
        self._ranks.put(f"resume/buckets/{self._ranks.rank}", self._orders.restored)
        planned: list[tuple[WatchedReplica, SavedOrder]] = []
        problem: str | None = None
        for watched in self._orders.watched:
            found, why_not = self._plan(self._ranks, watched)
            problem = problem or why_not
            if found is not None:
                planned.append((watched, found))
        problems = [said for said in self._ranks.gather("resume/buckets-fit", problem) if said is not None]
        if problems:
            self._say(problems[0], self._orders.watched)
            return
        for watched, order in planned:
            try:
                watched.put_back(order)
            except BucketOrderError as error:
                self._say(str(error), [watched])

    def _plan(self, ranks: Ranks, watched: WatchedReplica) -> tuple[SavedOrder | None, str | None]:
        """Return the order to put back, and why that cannot be done."""
        if torch.distributed.get_rank() != ranks.rank:
            return None, "the ranks of the process group are numbered otherwise than RANK"
        theirs = ranks.get(f"resume/buckets/{watched.leader}")
        if theirs is None:
            return None, _UNKNOWN
        found = [each for each in decoded(theirs) if sorted(each.names) == sorted(watched.names)]
        if not found:
            return None, None  # it had made no step
        return found[0], watched.why_not(found[0])

    def step_done(self) -> None:
        """A step is done: see to what its backward pass has shown, after the first one of this process.

        Raises:
            UserError: The ranks take uneven inputs.
        """
        if not self._is_first_step:
            return
        self._is_first_step = False
        new = self._orders.watch(is_start=False)
        if new and self._is_resumed:
            self._say("it was made after the state was restored", new)
        if any(takes_uneven_inputs(watched.replica) for watched in self._orders.watched):
            raise uneven_inputs_error()
        for watched in self._orders.watched:
            try:
                watched.catch_up()
            except BucketOrderError as error:
                self._say(str(error), [watched])

    def _say(self, why: str, about: list[WatchedReplica] | tuple[WatchedReplica, ...]) -> None:
        for watched in about:
            if watched.matters:
                name = f"DistributedDataParallel of {watched.names[0] if watched.names else 'nothing'}, …"
                detail = (
                    f"the order in which three or more ranks add gradients could not be put back: {why}; "
                    "the last bits of a gradient may differ from an undisturbed run"
                )
                self._suspect(Reason(KIND, name, detail, _WRAP_FIRST if "made" in why else ""))


def uneven_inputs_error() -> UserError:
    """Return the error of a run whose ranks may make different numbers of steps."""
    return UserError(
        "uneven inputs (join() of DistributedDataParallel) are not supported: the ranks would not "
        "make the same steps, and have no boundary in common to save",
        hint="leave join() out: session.batches(loader) gives every rank as many batches",
    )
