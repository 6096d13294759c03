"""The batches of an epoch, sharded to the ranks.

Each sample once, to one rank, and as many batches to each rank.

The global order does not know of ranks. In round n, rank r of W gets batch n·W + r of it, so one step of all
ranks uses W batches that follow one another. What is left for the last round is less than a batch for each:
its samples are split evenly, and where there are fewer samples than ranks, they are added to the batches of
the round before.

When the number of ranks changes within an epoch, the rest of the same order is sharded again from where all
ranks together had come. So no sample is lost and none repeated, whatever the numbers were. Only if that
leaves a single step with fewer samples than ranks, all ranks take it over the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ShardPlan:
    """Whose batches, and from where on.

    Attributes:
        rank: Who gets them.
        world_size: Among how many.
        resharded_at: How many of its batches each rank had had when the number of ranks last changed.
        resharded_after: How many batches of the global order were used up then.
    """

    rank: int = 0
    world_size: int = 1
    resharded_at: int = 0
    resharded_after: int = 0

    @property
    def is_everything(self) -> bool:
        """Whether one rank gets the whole order as it is."""
        return self.world_size == 1 and self.resharded_at == self.resharded_after


class ShardedOrder(Sequence[Any]):
    """One rank's batches of an epoch.

    Args:
        batches: The global order: lists of indices, or single indices, which cannot be split.
        plan: Which of them.
        drops_rest: Whether to leave out what does not fill a round.
    """

    def __init__(self, batches: Sequence[Any], plan: ShardPlan, *, drops_rest: bool) -> None:
        self._batches = batches
        self._shard_plan = plan
        self._rounds, rest = divmod(max(len(batches) - plan.resharded_after, 0), plan.world_size)
        self._rest: list[Any] = []
        if rest and not drops_rest:
            self._rest = [
                index for batch in range(len(batches) - rest, len(batches)) for index in batches[batch]
            ]
        self._has_own_rest = bool(self._rest) and (len(self._rest) >= plan.world_size or self._rounds == 0)

    def __len__(self) -> int:
        return self._shard_plan.resharded_at + self._rounds + self._has_own_rest

    def __getitem__(self, batch: Any) -> Any:
        plan = self._shard_plan
        round_ = batch - plan.resharded_at
        if not 0 <= round_ < self._rounds + self._has_own_rest:
            raise IndexError(batch)
        if round_ == self._rounds:
            return _share(self._rest, plan)
        sharded = self._batches[plan.resharded_after + round_ * plan.world_size + plan.rank]
        if round_ == self._rounds - 1 and self._rest and not self._has_own_rest:
            return [*sharded, *self._rest[plan.rank : plan.rank + 1]]
        return sharded

    def __iter__(self) -> Iterator[Any]:
        return (self[batch] for batch in range(self._shard_plan.resharded_at, len(self)))

    def number(self, batch: int) -> int:
        """Return a number for the randomness of a batch that no other batch of the epoch has, on any rank."""
        plan = self._shard_plan
        return plan.resharded_after + (batch - plan.resharded_at) * plan.world_size + plan.rank


class OwnShardedOrder(Sequence[Any]):
    """The batches of a sampler that shards by itself, taken as they are."""

    def __init__(self, batches: Sequence[Any], plan: ShardPlan) -> None:
        self._batches = batches
        self._shard_plan = plan

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, batch: Any) -> Any:
        return self._batches[batch]

    def number(self, batch: int) -> int:
        """Return a number for the randomness of a batch that no other batch of the epoch has, on any rank."""
        return batch * self._shard_plan.world_size + self._shard_plan.rank


def _share(rest: list[Any], plan: ShardPlan) -> list[Any]:
    if len(rest) < plan.world_size:
        # The only round, and a rank without a sample could not take the step: all take it over the same
        # samples, and the average of their gradients is that of each sample once.
        return list(rest)
    least, more = divmod(len(rest), plan.world_size)
    begin = plan.rank * least + min(plan.rank, more)
    return rest[begin : begin + least + (plan.rank < more)]
