"""A generator of the script's own that training draws from and that is not tracked is a suspicion."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

import trainerd

KINDS = {
    "torch": lambda: torch.Generator().manual_seed(1),
    "numpy": lambda: np.random.default_rng(1),
    "numpy-legacy": lambda: np.random.RandomState(1),
    "python": lambda: random.Random(1),
}
_of_a_module = np.random.default_rng(3)


def draw(generator):
    if isinstance(generator, torch.Generator):
        return torch.rand(1, generator=generator)
    return generator.random() if hasattr(generator, "random") else generator.rand()


def mixed(x):
    return x * _of_a_module.random()


class Noisy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rng = torch.Generator()

    def forward(self, x):
        return x + torch.rand(x.shape, generator=self.rng)


def found(session):
    return [each for each in session._run.suspicions.reasons if each.kind == "untracked-generator"]


@pytest.mark.parametrize("place", ["step", "epoch"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_that_is_drawn_from_is_named(kind, place, tmp_path):
    generator, idle = KINDS[kind](), KINDS[kind]()
    with trainerd.session(tmp_path, seed=0) as session:
        for _ in session.epochs(2):
            if place == "epoch":
                draw(generator)
            for _ in session.batches([torch.ones(1)] * 2):
                if place == "step":
                    draw(generator)
    (reason,) = found(session)
    assert reason.hint == "session.track(generator=generator)"
    assert "tests/unit/training/loops/test_generators_beside.py:" in reason.where
    assert idle is not generator


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_is_tracked_is_fine(kind, tmp_path):
    generator = KINDS[kind]()
    with trainerd.session(tmp_path, seed=0) as session:
        session.track(generator=generator)
        for _ in session.batches([torch.ones(1)] * 3):
            draw(generator)
    assert not found(session)


def test_one_that_a_function_of_the_script_names_is_named(tmp_path):
    with trainerd.session(tmp_path, seed=0) as session:
        for x in session.batches([torch.ones(1)] * 2):
            mixed(x)
    assert [each.hint for each in found(session)] == ["session.track(_of_a_module=_of_a_module)"]


def test_those_of_a_sampler_and_of_a_tracked_module_and_the_global_ones_are_fine(tmp_path):
    generator, noisy = torch.Generator().manual_seed(1), Noisy()
    everyones = torch.default_generator
    sampler = WeightedRandomSampler(torch.ones(4), 4, generator=generator)
    with trainerd.session(tmp_path, seed=0) as session:
        session.track(noisy=noisy)
        for (x,) in session.batches(DataLoader(TensorDataset(torch.ones(4, 1)), 2, sampler=sampler)):
            noisy(x + torch.rand(x.shape, generator=generator) + torch.rand(x.shape, generator=everyones))
    assert not found(session)


def test_a_function_that_names_the_session_does_not_lead_into_it(tmp_path):
    with trainerd.session(tmp_path, seed=0) as session:

        def note():
            session.log(loss=0.0)

        loader = DataLoader(TensorDataset(torch.ones(4, 1)), 2, shuffle=True)
        for _ in session.epochs(2):
            for _ in session.batches(loader):
                note()
    assert not found(session)
