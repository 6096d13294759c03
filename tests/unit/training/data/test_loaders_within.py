"""Loaders within an object or a generator that the session loops over: what they remember."""

import random

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from tests.support.in_process import attempt, disturbed, undisturbed
from tests.support.struck import struck_reasons

pytestmark = pytest.mark.torch


class CountsReads(Dataset):
    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.reads += 1
        return torch.tensor(index + 10.0 * self.reads)


class CountsPasses(Sampler):
    def __init__(self):
        self.passes = 0

    def __len__(self):
        return 4

    def __iter__(self):
        self.passes += 1
        return iter([(index + self.passes) % 4 for index in range(4)])


class Shuffles(Sampler):
    def __init__(self):
        self.rng = random.Random(1)

    def __len__(self):
        return 4

    def __iter__(self):
        return iter(self.rng.sample(range(4), 4))


class Ahead:
    """Fetches one batch ahead, as prefetchers do."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        iterator = iter(self.loader)
        batch = next(iterator, None)
        while batch is not None:
            following = next(iterator, None)
            yield batch
            batch = following


class Chained:
    def __init__(self, *loaders):
        self.loaders = loaders

    def __iter__(self):
        for loader in self.loaders:
            yield from loader


def loop_over(made):
    def loop(session, tick):
        batches = made()
        session.track(model=nn.Linear(1, 1))
        for _ in session.epochs(3):
            for batch in session.batches(batches()):
                session.log(loss=batch.sum())
                tick()

    return loop


def kept(loader):
    return lambda: loader


WITHIN = {
    "a sampler that counts": lambda: kept(Ahead(DataLoader(CountsReads(), 2, sampler=CountsPasses()))),
    "a sampler that draws": lambda: kept(Ahead(DataLoader(CountsReads(), 2, sampler=Shuffles()))),
    "of several": lambda: kept(Chained(*[DataLoader(CountsReads(), 4, sampler=CountsPasses())] * 2)),
}


@pytest.mark.parametrize("kind", WITHIN)
def test_what_a_loader_within_remembers_goes_on(tmp_path, saved_each_time, kind):
    loop = loop_over(WITHIN[kind])
    expected = undisturbed(tmp_path / "left-alone", loop, steps=1)
    assert disturbed(tmp_path / "struck", loop, (3, 3), steps=1) == expected


@pytest.mark.parametrize("remembers", [True, False])
def test_a_generator_over_a_loader_that_remembers_is_named(tmp_path, remembers):
    def made():
        options = {"sampler": CountsPasses()} if remembers else {"shuffle": True}
        loader = DataLoader(range(4), 2, **options)

        def forwarded(inner):
            yield from inner

        return lambda: forwarded(loader)

    loop = loop_over(made)
    attempt(tmp_path, loop, crash_at=4, steps=1)
    attempt(tmp_path, loop, steps=1)
    assert ("iterator-not-restartable" in struck_reasons(tmp_path)) == remembers
