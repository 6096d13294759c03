"""The order of an epoch depends on the seed and the epoch, and on nothing else."""

import random

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from trainerd.training.data.order import batch_order

DATA = TensorDataset(torch.arange(23))


class ShuffledByPython(Sampler):
    """A user's sampler that draws from Python's global generator."""

    def __len__(self):
        return 23

    def __iter__(self):
        indices = list(range(23))
        random.shuffle(indices)
        return iter(indices)


LOADERS = {
    "shuffle": lambda: DataLoader(DATA, batch_size=4, shuffle=True),
    "sequential": lambda: DataLoader(DATA, batch_size=4),
    "drop_last": lambda: DataLoader(DATA, batch_size=4, shuffle=True, drop_last=True),
    "with replacement": lambda: DataLoader(DATA, batch_size=4, sampler=RandomSampler(DATA, replacement=True)),
    "weighted": lambda: DataLoader(DATA, batch_size=4, sampler=WeightedRandomSampler([1.0] * 23, 12)),
    "subset": lambda: DataLoader(DATA, batch_size=4, sampler=SubsetRandomSampler([1, 5, 9, 20, 21])),
    "own generator": lambda: DataLoader(DATA, batch_size=4, shuffle=True, generator=torch.Generator()),
    "users sampler": lambda: DataLoader(DATA, batch_size=4, sampler=ShuffledByPython()),
    "batch sampler": lambda: DataLoader(
        DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 5, drop_last=False)
    ),
    "no batching": lambda: DataLoader(DATA, batch_size=None, shuffle=True),
}


@pytest.fixture(params=LOADERS, ids=str)
def make(request):
    return LOADERS[request.param]


def test_the_same_epoch_has_the_same_order_whatever_was_drawn_before(make):
    first = list(batch_order(make(), seed=1, epoch=3))
    torch.rand(7), random.random()
    loader = make()
    for epoch in range(3):
        list(batch_order(loader, seed=1, epoch=epoch))
    assert list(batch_order(loader, seed=1, epoch=3)) == first


def test_asking_for_an_order_draws_nothing_from_the_global_generators(make):
    before = (torch.get_rng_state(), random.getstate())
    batch_order(make(), seed=1, epoch=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_an_order_has_the_length_of_the_loader(make):
    loader = make()
    assert len(batch_order(loader, seed=1, epoch=0)) == len(loader)


@pytest.mark.parametrize("name", sorted(set(LOADERS) - {"sequential", "batch sampler"}))
def test_random_orders_differ_between_epochs_and_seeds(name):
    loader = LOADERS[name]()
    orders = [list(batch_order(loader, seed=seed, epoch=epoch)) for seed, epoch in [(1, 0), (1, 1), (2, 0)]]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_every_sample_is_in_a_shuffled_epoch_once():
    indices = [index for batch in batch_order(LOADERS["shuffle"](), seed=5, epoch=2) for index in batch]
    assert sorted(indices) == list(range(23))


def test_a_batch_is_looked_up_without_those_before():
    order = batch_order(
        DataLoader(TensorDataset(torch.empty(1_000_000)), batch_size=10, shuffle=True), seed=1, epoch=0
    )
    assert order[99_999] == list(order)[99_999]
