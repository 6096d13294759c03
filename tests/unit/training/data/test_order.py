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


class ByEpoch(Sampler):
    """A user's sampler, or sampler of batches, whose order is a function of the epoch that it is told."""

    def __init__(self, *, gives_batches=False):
        self.epoch = 0
        self.gives_batches = gives_batches

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 23

    def __iter__(self):
        order = [(index + self.epoch) % 23 for index in range(23)]
        return iter([[index] for index in order] if self.gives_batches else order)


LOADERS = {
    "shuffle": lambda: DataLoader(DATA, batch_size=4, shuffle=True),
    "sequential": lambda: DataLoader(DATA, batch_size=4),
    "drop_last": lambda: DataLoader(DATA, batch_size=4, shuffle=True, drop_last=True),
    "with replacement": lambda: DataLoader(DATA, batch_size=4, sampler=RandomSampler(DATA, replacement=True)),
    "weighted": lambda: DataLoader(DATA, batch_size=4, sampler=WeightedRandomSampler([1.0] * 23, 12)),
    "weighted, own generator": lambda: DataLoader(
        DATA, batch_size=4, sampler=WeightedRandomSampler([1.0] * 23, 12, generator=torch.Generator())
    ),
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


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_a_sampler_is_told_the_epoch(epoch):
    loader = DataLoader(DATA, batch_size=1, sampler=ByEpoch())
    assert batch_order(loader, seed=1, epoch=epoch)[0] == [epoch]


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_a_sampler_of_batches_is_told_the_epoch(epoch):
    loader = DataLoader(DATA, batch_sampler=ByEpoch(gives_batches=True))
    assert batch_order(loader, seed=1, epoch=epoch)[0] == [epoch]


def test_asking_for_an_order_leaves_the_generator_of_a_sampler_as_it_was():
    """Another user of the generator goes on where it stood."""
    generator = torch.Generator().manual_seed(9)
    sampler = WeightedRandomSampler([1.0] * 23, 12, generator=generator)
    before = generator.get_state()
    batch_order(DataLoader(DATA, batch_size=4, sampler=sampler), seed=1, epoch=0)
    assert torch.equal(generator.get_state(), before)


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
