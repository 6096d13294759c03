"""What training changed in a module and is in no state dict is saved; what it did not change stays the
program's."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from tests.support.exact import assert_same, through_disk
from trainerd.training.checkpointer import Checkpointer
from trainerd.training.state.module_extras import ModuleBaseline
from trainerd.training.state.rank_files import read_verified

pytestmark = pytest.mark.torch


class Rich(torch.nn.Module):
    """Has some of everything that can hang on a module."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.register_buffer("mean", torch.zeros(2), persistent=False)
        self.is_ready = False
        self.count = 0
        self.rate = 0.5
        self.mode = "warm"
        self.nothing = None
        self.hidden = torch.zeros(3)
        self.pair = (torch.zeros(2), [1, 2])
        self.table = {"a": 1, 2: torch.zeros(1)}
        self.array = np.zeros(3)
        self.noise = torch.Generator().manual_seed(0)
        self.legacy = np.random.RandomState(0)
        self.modern = np.random.default_rng(0)
        self.python = random.Random(0)
        self.function = len
        self.inner = torch.nn.Sequential(torch.nn.BatchNorm1d(2))


CHANGES = {
    "flag": lambda m: setattr(m, "is_ready", True),
    "number": lambda m: setattr(m, "count", 7),
    "float": lambda m: setattr(m, "rate", float("nan")),
    "text": lambda m: setattr(m, "mode", "cold"),
    "nothing becomes a tensor": lambda m: setattr(m, "nothing", torch.ones(2)),
    "a new attribute": lambda m: setattr(m, "late", 3),
    "tensor in place": lambda m: m.hidden.add_(1),
    "tensor through data": lambda m: m.hidden.data.add_(1),
    "tensor replaced": lambda m: setattr(m, "hidden", torch.ones(3)),
    "within a tuple": lambda m: m.pair[0].add_(1),
    "within a dict": lambda m: m.table.update(a=2),
    "array": lambda m: m.array.fill(2),
    "buffer in place": lambda m: m.mean.add_(1),
    "buffer replaced": lambda m: setattr(m, "mean", torch.ones(2)),
    "of a submodule": lambda m: setattr(m.inner[0], "momentum", 0.9),
    "training mode": lambda m: m.inner.eval(),
    "frozen": lambda m: m.linear.weight.requires_grad_(False),
}


def plain(module: Rich) -> dict:
    return {
        name: value
        for name, value in vars(module).items()
        if name
        in {"is_ready", "count", "rate", "mode", "nothing", "hidden", "pair", "table", "array", "late"}
    } | {
        "mean": module.mean,
        "momentum": module.inner[0].momentum,
        "training": [each.training for each in module.modules()],
        "requires_grad": [each.requires_grad for each in module.parameters()],
    }


@pytest.mark.parametrize("name", CHANGES)
def test_what_training_changed_comes_back(tmp_path, name):
    former, fresh = Rich(), Rich()
    with Checkpointer(tmp_path, {"model": former}) as checkpointer:
        CHANGES[name](former)
        checkpointer.save(step=1)
    with Checkpointer(tmp_path, {"model": fresh}) as checkpointer:
        checkpointer.resume()
        assert_same(plain(fresh), plain(former))
        checkpointer.save(step=2)  # it differs from the new program's beginning, so it is saved again
    again = Rich()
    with Checkpointer(tmp_path, {"model": again}) as checkpointer:
        checkpointer.resume()
    assert_same(plain(again), plain(former))


@pytest.mark.parametrize("name", ["noise", "legacy", "modern", "python"])
def test_a_generator_that_drew_goes_on_where_it_was(tmp_path, name):
    def draw(module):
        generator = getattr(module, name)
        if name == "noise":
            return torch.rand(3, generator=generator).tolist()
        if name == "python":
            return [generator.random(), generator.gauss(0, 1)]
        return [
            *generator.normal(size=3),
            generator.integers(9) if name == "modern" else generator.randint(9),
        ]

    former, fresh = Rich(), Rich()
    with Checkpointer(tmp_path, {"model": former}) as checkpointer:
        draw(former)
        checkpointer.save(step=1)
    generator = getattr(fresh, name)
    with Checkpointer(tmp_path, {"model": fresh}) as checkpointer:
        checkpointer.resume()
    assert getattr(fresh, name) is generator
    assert draw(fresh) == draw(former)


def test_what_did_not_change_is_configuration_and_stays_as_the_new_program_has_it(tmp_path):
    former, fresh = Rich(), Rich()
    fresh.rate, fresh.mode = 0.9, "new"
    fresh.linear.bias.requires_grad_(False)
    through_disk(tmp_path, {"model": former}, {"model": fresh})
    assert (fresh.rate, fresh.mode, fresh.linear.bias.requires_grad) == (0.9, "new", False)


def test_nothing_is_noted_of_a_module_that_did_not_change():
    module = Rich()
    baseline = ModuleBaseline(module)
    module.linear(torch.ones(1, 2)).sum().backward()
    assert baseline.changes(module) == {}


@pytest.mark.parametrize(
    "build",
    [
        lambda: torch.nn.LSTM(2, 3, num_layers=2, dropout=0.1),
        lambda: torch.nn.MultiheadAttention(4, 2),
        lambda: torch.nn.TransformerEncoderLayer(4, 2, 8),
        lambda: torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(3, 2)),
        lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)),
    ],
)
def test_the_modules_of_torch_have_nothing_of_the_kind(build):
    module = build()
    baseline = ModuleBaseline(module)
    for parameter in module.parameters():
        parameter.data.add_(1)
    assert baseline.changes(module) == {}


def test_a_value_with_a_graph_is_saved_without_it(tmp_path):
    former, fresh = Rich(), Rich()
    with Checkpointer(tmp_path, {"model": former}) as checkpointer:
        former.hidden = former.linear(torch.ones(2))
        checkpointer.save(step=1)
    with Checkpointer(tmp_path, {"model": fresh}) as checkpointer:
        checkpointer.resume()
    assert torch.equal(fresh.hidden, former.hidden)
    assert not fresh.hidden.requires_grad


def test_restoring_twice_gives_the_same_and_shares_nothing(tmp_path):
    former, fresh = Rich(), Rich()
    with Checkpointer(tmp_path, {"model": former}) as checkpointer:
        former.hidden.add_(1)
        checkpointer.save(step=1)
    with Checkpointer(tmp_path, {"model": fresh}) as checkpointer:
        tree = read_verified(checkpointer.checkpoints()[0], 0)
        tree.apply(checkpointer.objects, source="step-000000001")
        fresh.hidden.add_(5)
        tree.apply(checkpointer.objects, source="step-000000001")
    assert torch.equal(fresh.hidden, torch.ones(3))


@pytest.mark.parametrize("build", [lambda: torch.Generator().manual_seed(3), lambda: np.random.default_rng(3),
                                   lambda: np.random.RandomState(3), lambda: random.Random(3)])  # fmt: skip
def test_generators_can_be_tracked(tmp_path, build):
    def draw(generator):
        if isinstance(generator, torch.Generator):
            return torch.rand(2, generator=generator).tolist()
        return [generator.random() for _ in range(2)]

    former, fresh = build(), build()
    draw(former)
    through_disk(tmp_path, {"g": former}, {"g": fresh})
    assert draw(fresh) == draw(former)


def test_a_generator_of_another_kind_is_refused(tmp_path):
    from trainerd.errors import MismatchError

    with pytest.raises(MismatchError, match="does not take the state of a generator of kind python"):
        through_disk(tmp_path, {"g": random.Random(3)}, {"g": torch.Generator()})
