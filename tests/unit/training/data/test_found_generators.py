"""Generators are found wherever they hang, and streams of their own leave no trace."""

import functools
import random

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from trainerd.training.data.found_generators import find_generators
from trainerd.training.data.own_streams import OwnStreams
from trainerd.training.state.generators import generator_state

GLOBAL = np.random.default_rng(3)
HELD = random.Random(1)


class Holder:
    def __init__(self, value):
        self.any_name = value


class Slotted:
    __slots__ = ("inside",)

    def __init__(self, value):
        self.inside = value


class ByClass:
    rng = HELD


class ByMethod:
    def __call__(self):
        return GLOBAL.normal()


def by_closure(value):
    return lambda: value


def by_default(value=HELD):
    return value


def by_global():
    return helper()


def helper():
    return [GLOBAL.normal() for _ in range(2)]


class Method:
    def __init__(self, value):
        self.value = value

    def collate(self, samples):
        return samples


PLACES = {
    "attribute": Holder,
    "slot": Slotted,
    "list": lambda value: Holder([0, {"a": (value,)}]),
    "nested": lambda value: ConcatDataset([Subset(Data(Holder(Holder(value))), [0])]),
    "closure": by_closure,
    "partial": lambda value: functools.partial(print, file=value),
    "bound method": lambda value: Method(value).collate,
}


class Data(Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 1


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize(
    "generator", [HELD, np.random.default_rng(0), np.random.RandomState(0), torch.Generator()]
)
def test_a_generator_is_found(place, generator):
    assert list(find_generators(root=place(generator)).by_path.values()) == [generator]


def test_what_code_names_is_found():
    assert list(find_generators(root=ByClass()).by_path.values()) == [HELD]
    assert list(find_generators(root=by_default).by_path.values()) == [HELD]
    assert list(find_generators(root=ByMethod()).by_path.values()) == [GLOBAL]
    assert list(find_generators(root=by_global).by_path.values()) == [GLOBAL]


def test_the_global_generators_are_not():
    roots = Holder([torch.default_generator, random._inst, random.shuffle, np.random.mtrand._rand])
    assert not find_generators(root=roots).by_path


def test_generators_without_a_state_are_reported():
    found = find_generators(root=Holder(random.SystemRandom()))
    assert found.unseedable == ["root.any_name"]
    assert not found.by_path


def test_a_long_list_is_data_and_a_cycle_ends():
    circle = Holder([HELD])
    circle.again = circle
    circle.data = [Holder(0) for _ in range(100_000)]
    assert list(find_generators(root=circle).by_path.values()) == [HELD]


def test_equal_loaders_have_equal_paths():
    def loader():
        return DataLoader(Data(Holder([random.Random()])), 1, shuffle=True, generator=torch.Generator())

    one, other = (find_generators(loader=loader()).by_path for _ in range(2))
    assert list(one) == list(other)
    assert len(one) == 2


def draws(generators):
    return [
        generators[0].random(),
        generators[1].normal(),
        generators[2].normal(),
        torch.rand((), generator=generators[3]).item(),
        random.random(),
        np.random.rand(),
        torch.rand(()).item(),
    ]


def test_streams_of_their_own_depend_on_seed_and_path_and_leave_no_trace():
    def made():
        return [random.Random(), np.random.RandomState(), np.random.default_rng(), torch.Generator()]

    one, other = made(), made()
    streams, others = (OwnStreams({str(key): each for key, each in enumerate(each)}) for each in (one, other))
    before = [str(generator_state(each)) for each in one]
    found = []
    for seed in (5, 6):
        for which, generators in ((streams, one), (others, other)):
            which.begin(seed)
            found.append(draws(generators))
            which.end()
    assert found[0] == found[1] != found[2] == found[3]
    assert len(set(found[0])) == 7
    assert [str(generator_state(each)) for each in one] == before
