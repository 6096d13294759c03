"""Variables of classes, functions, modules and hooks that decide a run are a part of it."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from tests.support.in_process import disturbed, undisturbed
from tests.support.in_process_drain import drained_at
from tests.support.training_runs import result_of
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume
from trainerd.training.data.code_variables import attributes_of, store, variables_below

pytestmark = pytest.mark.torch

COUNT = 0
STATISTICS = {"reads": 0}


class Slotted:
    __slots__ = ("calls",)

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return x + self.calls / 100


class Ramp(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x + self.calls / 30


class Points(Dataset):
    reads = 0

    def __init__(self):
        self.transforms = [Slotted(), {"ramp": Ramp()}]

    def __len__(self):
        return 8

    def __getitem__(self, index):
        global COUNT  # noqa: PLW0603 - as scripts do
        COUNT += 1
        type(self).reads += 2
        STATISTICS["reads"] += 3
        x = torch.full((3,), index / 8)
        for each in (self.transforms[0], self.transforms[1]["ramp"]):
            x = each(x)
        return x + COUNT / 10 + self.reads / 20 + STATISTICS["reads"] / 30


class Rotated(Sampler):
    passes = 0

    def __init__(self):
        pass

    def __len__(self):
        return 8

    def __iter__(self):
        type(self).passes += 1
        return iter([(index * 3 + self.passes) % 8 for index in range(8)])


def collate_with():
    calls, number = [0], 0

    def collate(samples, seen=[0]):  # noqa: B006 - as scripts do
        nonlocal number
        number += 1
        calls[0] += 1
        seen[0] += 1
        collate.batches += 1
        return torch.stack(samples) + number / 10 + calls[0] / 20 + seen[0] / 30 + collate.batches / 40

    collate.batches = 0
    return collate


def counters(session, tick):
    global COUNT
    COUNT, STATISTICS["reads"], Points.reads, Rotated.passes = 0, 0, 0, 0
    data = Points()
    train(session, tick, DataLoader(data, 2, sampler=Rotated(), collate_fn=collate_with()))


def in_an_iterable(session, tick):
    calls = [0]

    class Again:
        def __iter__(self):
            for number in range(4):
                calls[0] += 1
                yield torch.full((2, 3), number + calls[0] / 10)

    train(session, tick, Again())


class Fading:
    def __init__(self):
        self.calls = 0
        self.shown = None

    def __call__(self, *shown):
        self.calls += 1
        self.shown = shown[-1]
        return None if isinstance(shown[-1], dict) else shown[-1] / self.calls


def hooks(session, tick):
    def register(model, optimizer):
        scale = [1.0]

        def grow(gradient):
            scale[0] *= 1.1
            return gradient * scale[0]

        model[0].weight.register_hook(grow)
        model[0].bias.register_hook(Fading())
        model[1].register_forward_hook(Fading())
        fading = Fading()

        def lower(optimizer, _args, _options):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + fading.calls)
            fading.calls += 1

        optimizer.register_step_pre_hook(lower)

    train(session, tick, DataLoader(torch.arange(24.0).view(8, 3) / 24, 2, shuffle=True), register)


def frozen_after_track(session, tick):
    def freeze(model, _optimizer):
        model[0].requires_grad_(False)
        model[1].eval()

    def unfreeze(model, epoch):
        if epoch == 1:
            model[0].requires_grad_(True)
            model[1].train()

    train(session, tick, DataLoader(torch.arange(24.0).view(8, 3) / 24, 2), freeze, unfreeze)


def train(session, tick, loader, prepare=None, change=None):
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.2), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    session.track(model=model, optimizer=optimizer)
    if prepare is not None:
        prepare(model, optimizer)
    for epoch in session.epochs(3):
        if change is not None:
            change(model, epoch)
        for x in session.batches(loader):
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.log(loss=loss)
            tick()


@pytest.mark.parametrize(
    "loop", [counters, in_an_iterable, hooks, frozen_after_track], ids=lambda loop: loop.__name__
)
def test_what_code_remembers_survives_a_kill_and_a_drain(loop, tmp_path):
    expected = undisturbed(tmp_path / "whole", loop)
    assert disturbed(tmp_path / "killed", loop, (6,)) == expected
    drained_at(tmp_path / "drained", loop, 10)
    assert disturbed(tmp_path / "drained", loop, ()) == expected


@pytest.mark.parametrize("again", [False, True], ids=["once", "at the top of each epoch"])
def test_a_module_that_training_replaced_is_a_suspicion(again, tmp_path):
    def loop(session, tick):
        def replace(model, epoch):
            if epoch == 1 or (again and epoch > 1):
                model[1] = nn.Tanh()

        train(session, tick, DataLoader(torch.arange(24.0).view(8, 3) / 24, 2), None, replace)

    expected = undisturbed(tmp_path / "whole", loop)
    drained_at(tmp_path / "run", loop, 10)
    is_equal = disturbed(tmp_path / "run", loop, ()) == expected
    resume = read_resume(RunPaths(tmp_path / "run").resume)
    kinds = {(each.kind, each.where) for each in resume.reasons}
    assert is_equal == again
    assert (("module-replaced", "model.1") in kinds) == (not again)
    assert (resume.verdict == "suspect") == (not again)
    assert result_of(tmp_path / "run").rows


def test_an_object_that_code_names_counts_by_the_attributes_that_it_names():
    owner = SimpleNamespace  # of the standard library, so not looked into

    class Trainer:
        def __init__(self):
            self.scale, self.best, self.other = 1.0, 0.0, owner()

        def collate(self, samples):
            self.scale *= 2
            return samples

    trainer = Trainer()
    found = dict(variables_below("collate_fn", trainer.collate))
    names = {name for each in found.values() for name in attributes_of(each)}
    assert "scale" in names
    assert not {"best", "other"} & names
    store(found["collate_fn.<self>"], "scale", 8.0)
    assert trainer.scale == 8.0


def test_libraries_and_large_values_are_no_variables():
    table = list(range(10_000))
    counter = itertools.count()

    def collate(samples):
        return torch.stack(samples) * next(counter) + table[0]

    found = dict(variables_below("collate_fn", collate))
    assert set(found) == {"collate_fn.<collate>"}
    assert set(attributes_of(found["collate_fn.<collate>"])) == {"counter"}
