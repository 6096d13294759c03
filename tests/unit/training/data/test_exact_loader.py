"""An exact loader: each batch is a function of (seed, epoch, batch), whatever is done with the loader."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    WeightedRandomSampler,
)

import trainerd
from trainerd.errors import UserError

pytestmark = pytest.mark.torch


class Augmented(Dataset[Any]):
    def __init__(self, length: int = 11) -> None:
        self.length = length
        self.own = np.random.default_rng(0)
        self.classes = ["a", "b"]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[float]:
        noise = torch.rand(1).item() + random.random() + float(np.random.rand())
        return [float(index), noise, float(self.own.random())]


class RandomCollate:
    def __init__(self) -> None:
        self.own = torch.Generator().manual_seed(1)

    def __call__(self, items: Any) -> torch.Tensor:
        mask = torch.rand(len(items), 3, generator=self.own) + torch.rand(1)
        return torch.tensor(items) * mask


def loader(**options: Any) -> Any:
    return trainerd.exact(
        DataLoader(
            Augmented(), **{"batch_size": 3, "shuffle": True, "collate_fn": RandomCollate()} | options
        ),
        seed=4,
    )


def values(batches: Any) -> list[Any]:
    return [batch.tolist() for batch in batches]


def test_it_is_a_real_loader_with_the_data_of_the_former() -> None:
    plain = DataLoader(Augmented(), batch_size=3, shuffle=True)
    found = trainerd.exact(plain)
    assert isinstance(found, DataLoader)
    assert (len(found), len(found.dataset), found.batch_sampler.batch_size) == (4, 11, 3)
    assert found.dataset.classes == ["a", "b"]
    assert sorted(int(each) for batch in found for each in batch[0]) == list(range(11))


def test_each_pass_is_another_epoch_until_one_is_set() -> None:
    found = loader()
    epochs = [values(found), values(found)]
    assert epochs[0] != epochs[1]
    again = loader()
    again.set_epoch(1)
    assert [values(again), values(again)] == [epochs[1], epochs[1]]


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_a_pass_begins_at_any_batch(start: int) -> None:
    found = loader()
    found.set_epoch(2)
    whole = values(found)
    again = loader()
    again.begin_at(2, start)
    assert values(again) == whole[start:]
    assert values(again) == whole


def test_the_number_of_workers_and_what_is_drawn_outside_change_nothing() -> None:
    torch.rand(3)
    whole = values(loader())
    random.seed(9)
    state = torch.get_rng_state()
    assert values(loader(num_workers=2)) == whole
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": False, "batch_sampler": None},
        {"shuffle": False, "drop_last": True},
        {"shuffle": False, "sampler": WeightedRandomSampler([1.0] * 11, 9)},
        {"shuffle": False, "sampler": RandomSampler(range(11), replacement=True)},
        {"shuffle": False, "sampler": DistributedSampler(range(11), 2, 1)},
        {"shuffle": False, "sampler": SequentialSampler(range(11))},
        {"shuffle": None, "batch_size": 1, "batch_sampler": BatchSampler(RandomSampler(range(11)), 4, True)},
        {"batch_size": None, "collate_fn": torch.tensor},
    ],
    ids=["in-order", "drop-last", "weighted", "replacement", "distributed", "sequential", "batch", "single"],
)
def test_every_sampler_of_torch(options: dict[str, Any]) -> None:
    first, second = loader(**options), loader(**options)
    assert values(first) == values(second)
    assert len(values(first)) == len(first)
    second.set_epoch(5)
    first.set_epoch(5)
    whole = values(first)
    second.begin_at(5, 2)
    assert values(second) == whole[2:]


class Shard(BatchSampler):
    """Gives one of two ranks its share of each batch, and completes the last one, as accelerate does."""

    def __init__(self, inner: Any, rank: int) -> None:
        self.inner, self.rank = inner, rank
        self.batch_size, self.drop_last, self.sampler = inner.batch_size, inner.drop_last, inner.sampler

    def __iter__(self) -> Any:
        first = None
        for batch in self.inner:
            first = first or batch
            full = batch + first[: self.inner.batch_size - len(batch)]
            yield full[self.rank * 2 : self.rank * 2 + 2]

    def __len__(self) -> int:
        return len(self.inner)


class Skip(Shard):
    def __iter__(self) -> Any:
        yield from list(self.inner)[2:]


def rebuilt(found: Any, batches: Any) -> Any:
    return DataLoader(found.dataset, batch_sampler=batches, collate_fn=found.collate_fn)


def test_a_loader_that_is_built_from_its_parts_and_skips_is_exact() -> None:
    found = loader()
    found.set_epoch(1)
    whole = values(found)
    other = loader()
    skipping = Skip(other.batch_sampler, 0)
    skipping.sampler.set_epoch(1)
    assert values(rebuilt(other, skipping)) == whole[2:]


def test_shares_of_batches_are_drawn_apart_and_repeat() -> None:
    def shares(rank: int) -> list[Any]:
        found = loader(batch_size=4)
        return values(rebuilt(found, Shard(found.batch_sampler, rank)))

    assert shares(0) == shares(0)
    noise = [[row[1] for batch in shares(rank) for row in batch] for rank in (0, 1)]
    assert not set(noise[0]) & set(noise[1])


def test_a_session_takes_it_as_the_loader_that_it_was_made_from(tmp_path: Any) -> None:
    with trainerd.session(tmp_path, strict=False) as session:
        for _ in session.epochs(1):
            assert len(list(session.batches(loader()))) == 4


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([1])


class Endless:
    def __iter__(self) -> Any:
        while True:
            yield 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: [1, 2], "takes a DataLoader"),
        (lambda: DataLoader(Stream()), "Stream is an iterable"),
        (lambda: DataLoader(Augmented(), sampler=Endless()), "has none"),
    ],
    ids=["list", "iterable", "endless"],
)
def test_what_cannot_be_exact_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trainerd.exact(given())


def test_the_epoch_reaches_a_loader_that_is_sharded_and_skipped_into():
    """Accelerate sets it on the dataset where two samplers of its own lie around ours."""
    data_loader = pytest.importorskip("accelerate.data_loader")
    batches = []
    for first in (0, 2):
        loader = trainerd.exact(DataLoader(list(range(16)), batch_size=2, shuffle=True), 3)
        shard = data_loader.DataLoaderShard(
            loader.dataset,
            batch_sampler=data_loader.BatchSamplerShard(loader.batch_sampler, 2, 1),
            collate_fn=loader.collate_fn,
        )
        found = data_loader.skip_first_batches(shard, first) if first else shard
        found.set_epoch(4)
        batches.append([each.tolist() for each in found])
    assert batches[1] == batches[0][2:]
