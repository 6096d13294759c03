"""Loaders that cannot resume exactly are named, and others are not."""

import itertools
import random

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from trainerd.training.data.passes import Pass
from trainerd.training.data.sources import source_for

PASSES = [Pass((1, 0), 0), Pass((1, 0), 1)]


def reasons(loader, passes):
    found = []
    source = source_for(loader, seed=1, warn=lambda message: None, suspect=found.append)
    for each in passes:
        list(itertools.islice(source.iterate(each, 0, lambda: False), 2))
    return [reason.kind for reason in found]


def counting(values):
    yield from values


@pytest.mark.parametrize(
    "made",
    [
        lambda: iter([1, 2, 3]),
        lambda: itertools.islice(itertools.count(), 9),
        lambda: map(abs, [1, 2]),
        lambda: counting(iter([1, 2, 3])),
    ],
)
def test_an_iterator_that_goes_on_is_reported_from_the_second_pass_on(made):
    assert reasons(made(), PASSES[:1]) == []
    assert reasons(made(), PASSES[1:]) == ["iterator-not-restartable"]


def test_a_generator_made_for_the_pass_is_not_reported_unless_it_is_used_again():
    assert reasons(counting([1, 2, 3]), PASSES[1:]) == []
    assert reasons(counting([1, 2, 3]), PASSES) == ["iterator-not-restartable"]


class Data(Dataset):
    def __init__(self, rng):
        self.rng = rng

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if self.rng is None:
            self.rng = random.Random()
        return torch.tensor(self.rng.random())


def test_generators_that_cannot_be_seeded_are_reported():
    assert reasons(DataLoader(Data(random.Random()), 2), PASSES) == []
    assert reasons(DataLoader(Data(random.SystemRandom()), 2), PASSES) == ["generator-without-state"]
    assert reasons(DataLoader(Data(None), 2), PASSES) == ["generator-made-while-loading"]
