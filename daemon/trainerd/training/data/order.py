"""The order of an epoch's batches, as a function of the seed and the epoch alone.

A stock sampler draws its permutation from a generator that goes on from epoch to epoch, so where it stands in
the fifth depends on the four before. Here each epoch starts from a seed of its own: the permutation can be
made again in any process, at any time, and the n-th batch of it looked up without drawing the ones before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
)

from trainerd.training.data.drawing import drawn, known_length
from trainerd.training.data.found_generators import find_generators
from trainerd.training.data.lazy_order import LazyOrder, LazyShare
from trainerd.training.data.own_streams import OwnStreams
from trainerd.training.data.packed_order import ObjectOrder, PackedOrder, RemainingOrder
from trainerd.training.data.seeds import derive_seed
from trainerd.training.data.sharding import OwnShardedOrder, ShardedOrder, ShardPlan

_ORDER: Final = 0x6F726465  # keeps the seeds of the order apart from those of the samples


class UniformOrder(Sequence[list[int]]):
    """Batches of equal size over a permutation, or over the dataset as it lies."""

    def __init__(self, permutation: torch.Tensor | range, batch_size: int, *, drop_last: bool) -> None:
        # Slicing an array and listing it takes half the time that it takes with a tensor.
        self._permutation: Any = permutation
        if isinstance(permutation, torch.Tensor) and "numpy" in sys.modules:
            self._permutation = permutation.numpy()
        self._batch_size = batch_size
        full, rest = divmod(len(permutation), batch_size)
        self._length = full if drop_last or rest == 0 else full + 1

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(index)
        batch = self._permutation[index * self._batch_size : (index + 1) * self._batch_size]
        return list(batch) if isinstance(batch, range) else batch.tolist()

    def __iter__(self) -> Iterator[list[int]]:
        return (self[index] for index in range(self._length))


GlobalOrder = UniformOrder | PackedOrder | ObjectOrder | RemainingOrder | LazyOrder
"""The batches of an epoch of all ranks."""


def sharded_order(loader: Any, order: GlobalOrder, plan: ShardPlan) -> Sequence[Any] | LazyOrder | LazyShare:
    """Return one rank's batches of an epoch.

    A `DistributedSampler` is looked through: its samples are sharded here, each once and none repeated to
    fill up. Any other sampler that has a rank of its own shards by itself.

    Args:
        loader: The loader.
        order: What `batch_order` returned for it, with ``is_sharded_here`` unless the sampler shards itself.
        plan: Which batches.
    """
    if isinstance(order, LazyOrder):
        is_own = shards_itself(loader)
        return order if plan.is_everything else LazyShare(order, plan, shards_itself=is_own)
    if shards_itself(loader):
        return OwnShardedOrder(order, plan)
    if plan.is_everything:
        return order
    drops_rest = loader.batch_sampler is None or bool(getattr(loader.batch_sampler, "drop_last", False))
    inner = _inner_sampler(loader)
    if type(inner) is DistributedSampler:
        drops_rest = drops_rest or inner.drop_last
    return ShardedOrder(order, plan, drops_rest=drops_rest)


def shards_itself(loader: Any) -> bool:
    """Tell whether the loader's sampler gives this rank its own share, in a way that is not known here."""
    inner = _inner_sampler(loader)
    return type(inner) is not DistributedSampler and hasattr(inner, "num_replicas") and hasattr(inner, "rank")


def _inner_sampler(loader: Any) -> Any:
    sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    return getattr(sampler, "sampler", sampler)


def told_epoch(loader: Any, epoch: int) -> None:
    """Tell samplers with ``set_epoch`` the epoch."""
    sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    for each in (sampler, getattr(sampler, "sampler", sampler)):
        if hasattr(each, "set_epoch"):
            each.set_epoch(epoch)


def batch_order(loader: Any, *, seed: int, epoch: int, is_sharded_here: bool = False) -> GlobalOrder:
    """Return the batches of one epoch: what the loader's sampler yields, in an order made for this epoch.

    An element is a list of indices, or a single index where the loader does no batching.

    Any sampler is taken: the global generators, and those that it holds, are seeded for the time in which it
    is asked, and restored afterwards. One with ``set_epoch`` is told the epoch. If
    `is_sharded_here`, a `DistributedSampler` stands for all ranks' samples, not for those of its own rank.
    """
    order_seed = derive_seed(seed, _ORDER, epoch)
    sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    inner = getattr(sampler, "sampler", sampler)
    told_epoch(loader, epoch)
    length = known_length(loader.dataset)
    if type(sampler) is BatchSampler and length is not None:
        if type(inner) is SequentialSampler and known_length(inner.data_source) == length:
            return UniformOrder(range(length), sampler.batch_size, drop_last=sampler.drop_last)
        replicas = inner if is_sharded_here and type(inner) is DistributedSampler else None
        is_distributed = replicas is not None and len(cast("Any", replicas.dataset)) == length
        if is_distributed and replicas is not None and not replicas.shuffle:
            return UniformOrder(range(length), sampler.batch_size, drop_last=sampler.drop_last)
        if is_distributed or (
            type(inner) is RandomSampler and not inner.replacement and inner.num_samples == length
        ):
            generator = torch.Generator().manual_seed(order_seed)
            permutation = torch.randperm(length, generator=generator)
            return UniformOrder(permutation, sampler.batch_size, drop_last=sampler.drop_last)
    streams = OwnStreams(find_generators(sampler=sampler).by_path)
    return drawn(sampler, inner, streams, seed=order_seed, samples=length)


def is_function_of_seed(loader: Any) -> bool:
    """Tell whether the order of an epoch depends on nothing but the seed, the epoch and the data's length."""
    sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    inner = getattr(sampler, "sampler", sampler)
    if type(sampler) is not BatchSampler and inner is not sampler:
        return False
    return type(inner) in {SequentialSampler, RandomSampler, DistributedSampler}
