"""A stock DataLoader in every shape: any tail of an epoch, with any number of workers, is that of the whole.

And drawing the order, or loading, leaves the generators of the main process as they were.
"""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from trainerd.training.data.sources import MapSource, Pass, source_for

pytestmark = pytest.mark.torch


class Noisy(Dataset):
    """Samples with noise from every generator that transforms use."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()).item(), random.random(), np.random.rand()])


class Pairs(Sampler):
    """Batches of a user's own making: pairs that lie far apart, in an order of Python's generator."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size // 2

    def __iter__(self):
        order = list(range(self.size // 2))
        random.shuffle(order)
        return iter([[index, self.size - 1 - index] for index in order])


class WithGenerator(Sampler):
    """Indices of a user's own making, with a generator that lives on from epoch to epoch."""

    def __init__(self, size):
        self.size = size
        self.generator = torch.Generator().manual_seed(3)

    def __len__(self):
        return self.size

    def __iter__(self):
        return iter(torch.randperm(self.size, generator=self.generator).tolist())


def collate(samples):
    return torch.stack(samples) + torch.rand(())


def start(worker):
    random.seed(worker)  # as many do; a batch has its own seed all the same
    np.random.seed(worker)


DATA = Noisy()
LOADERS = {
    "default": {"batch_size": 4},
    "shuffle": {"batch_size": 4, "shuffle": True},
    "shuffle, drop_last": {"batch_size": 4, "shuffle": True, "drop_last": True},
    "sequential sampler": {"batch_size": 5, "sampler": SequentialSampler(DATA)},
    "random sampler with replacement": {"batch_size": 4, "sampler": RandomSampler(DATA, True, 30)},
    "random sampler of a part": {"batch_size": 4, "sampler": RandomSampler(DATA, num_samples=11)},
    "weighted": {"batch_size": 4, "sampler": WeightedRandomSampler([1.0 + index for index in range(23)], 19)},
    "subset sampler": {"batch_size": 4, "sampler": SubsetRandomSampler(range(3, 17)), "drop_last": True},
    "a sampler with a generator": {"batch_size": 4, "sampler": WithGenerator(23)},
    "a sampler of batches": {"batch_sampler": Pairs(23)},
    "batches of a sampler": {"batch_sampler": BatchSampler(RandomSampler(DATA), 6, drop_last=True)},
    "a generator of the user's": {
        "batch_size": 4,
        "shuffle": True,
        "generator": torch.Generator().manual_seed(5),
    },
    "collate": {"batch_size": 4, "shuffle": True, "collate_fn": collate},
    "no batching": {"batch_size": None, "shuffle": True},
    "pinned": {"batch_size": 4, "shuffle": True, "pin_memory": True},
}
WORKERS = {
    1: {"persistent_workers": True},
    2: {"prefetch_factor": 5, "worker_init_fn": start},
    4: {"persistent_workers": True, "prefetch_factor": 1},
}


def batches(loader, *, epoch=1, start=0):
    source = source_for(loader, seed=7, warn=lambda message: None)
    assert isinstance(source, MapSource)
    source._order(Pass((1, 0), epoch - 1))  # another epoch was asked for before
    return [batch.clone() for batch in source.iterate(Pass((1, 0), epoch), start, lambda: False)]


def generators():
    return torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state(legacy=False))


def same(left, right):
    return len(left) == len(right) and all(map(torch.equal, left, right))


@pytest.mark.filterwarnings("ignore:'pin_memory'", "ignore:This DataLoader will create")
@pytest.mark.parametrize("options", LOADERS.values(), ids=LOADERS.keys())
def test_any_tail_of_an_epoch_is_that_of_the_whole_and_nothing_is_drawn(options):
    before = generators()
    whole = batches(DataLoader(DATA, **options))
    assert len(whole) > 2
    for position in (1, len(whole) // 2, len(whole) - 1):
        assert same(batches(DataLoader(DATA, **options), start=position), whole[position:])
    assert not same(batches(DataLoader(DATA, **options), epoch=2), whole)
    assert generators() == before


@pytest.mark.filterwarnings("ignore:'pin_memory'", "ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(
    "name", ["shuffle, drop_last", "weighted", "a sampler of batches", "collate", "no batching", "pinned"]
)
def test_the_number_of_workers_and_how_they_are_kept_change_nothing(name, workers):
    before = generators()
    whole = batches(DataLoader(DATA, **LOADERS[name]))
    other = DataLoader(DATA, num_workers=workers, **LOADERS[name], **WORKERS[workers])
    assert same(batches(other, start=2), whole[2:])
    assert generators() == before


def test_workers_that_persist_go_from_epoch_to_epoch():
    loader = DataLoader(DATA, batch_size=4, shuffle=True, num_workers=1, persistent_workers=True)
    source = source_for(loader, seed=7, warn=lambda message: None)
    for epoch in (0, 1, 2):
        found = [batch.clone() for batch in source.iterate(Pass((1, 0), epoch), 3, lambda: False)]
        assert same(found, batches(DataLoader(DATA, batch_size=4, shuffle=True), epoch=epoch)[3:])


def test_a_subset_of_a_dataset_is_a_dataset_like_any_other():
    part = Subset(DATA, range(5, 20))
    whole = batches(DataLoader(part, batch_size=4, shuffle=True))
    assert sorted(index for batch in whole for index in batch[:, 0].tolist()) == list(range(5, 20))
    assert same(batches(DataLoader(part, batch_size=4, shuffle=True, num_workers=1), start=2), whole[2:])
