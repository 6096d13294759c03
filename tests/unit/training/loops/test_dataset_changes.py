"""What a script changes in its dataset or sampler while it trains is part of the run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from tests.support.struck import StruckRun
from trainerd.contract.verdict import Reason
from trainerd.training.data import attribute_marks
from trainerd.training.data.dataset_memory import DatasetMemory, FirstMarks

SAMPLES = 4


class Scaled:
    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, sample: torch.Tensor) -> torch.Tensor:
        return sample * self.scale


class Squared(Scaled):
    def __call__(self, sample: torch.Tensor) -> torch.Tensor:
        return sample.square()


class Points(Dataset):
    def __init__(self) -> None:
        self.x = torch.randn(SAMPLES, 3, generator=torch.Generator().manual_seed(0))
        self.chosen = list(range(SAMPLES))
        self.labels = np.zeros(SAMPLES, dtype=np.float32)
        self.transform = Scaled()
        self.cache: dict[int, torch.Tensor] = {}
        self.reads = 0

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        self.cache[index] = self.x[index]
        self.reads += 1
        return self.transform(self.x[self.chosen[index]]) + float(self.labels[index])


def replaced(data, loader, epoch, loss):
    data.chosen = [int(loss * 1000) % SAMPLES, epoch] * 2


def in_place(data, loader, epoch, loss):
    data.labels[epoch] += loss


def of_a_transform(data, loader, epoch, loss):
    data.transform.scale *= 1 + loss


def weights(data, loader, epoch, loss):
    loader.sampler.weights = loader.sampler.weights * (1 + torch.arange(SAMPLES) * loss)


CHANGES = [replaced, in_place, of_a_transform, weights]


def shape_of(change, *, is_new=False, in_loop=False):
    def shape(session, tick):
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        session.track(model=model, optimizer=optimizer)
        data = Points()
        sampler = WeightedRandomSampler(torch.ones(SAMPLES, dtype=torch.double), SAMPLES)
        loader = DataLoader(data, 2, sampler=sampler)
        for epoch in session.epochs(3):
            if is_new:
                loader = DataLoader(data, 2, shuffle=True)
            for batch in session.batches(loader):
                loss = model(batch).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                session.log(loss=loss.item())
                if in_loop:
                    change(data, loader, epoch, loss.item())
                tick()
            change(data, loader, epoch, float(model.weight.detach().abs().sum()))
            tick()

    return shape


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_survives_the_end_of_an_attempt(change, in_loop, kind, tmp_path, monkeypatch):
    shape = shape_of(change, in_loop=in_loop)
    undisturbed = StruckRun(monkeypatch, tmp_path / "undisturbed", shape)
    expected = undisturbed.result()
    for at in (5, 6):
        assert StruckRun(monkeypatch, tmp_path / f"{at}", shape).result(kind, at) == expected


def test_a_change_survives_if_the_loader_is_made_anew_each_epoch(tmp_path, monkeypatch):
    shape = shape_of(replaced, is_new=True)
    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    for at in (8,):
        assert StruckRun(monkeypatch, tmp_path / f"{at}", shape).result("SIGKILL", at) == expected


def test_an_object_that_no_checkpoint_holds_is_a_suspicion(tmp_path, monkeypatch):
    def exchanged(data, loader, epoch, loss):
        data.transform = Squared()

    StruckRun(monkeypatch, tmp_path, shape_of(exchanged)).result("SIGKILL", 8)
    found = json.loads((tmp_path / "resume.json").read_text())
    assert found["verdict"] != "exact"
    assert "dataset.transform" in [each["where"] for each in found["reasons"]]


# ---------------------------------------------------------------------- what is saved and what is not


def memory_of(data: Points, found: list[Reason] | None = None) -> DatasetMemory:
    return DatasetMemory({"dataset": data}, (found if found is not None else []).append, FirstMarks())


def test_nothing_is_saved_if_nothing_changed():
    assert memory_of(Points()).saved() == {}


def test_what_reading_changes_is_state_if_it_is_small(monkeypatch):
    data = Points()
    memory = memory_of(data)
    for index in range(3):
        with memory.reading():
            data[index]
    assert set(memory.saved()["changed"]) == {"dataset.cache", "dataset.reads"}
    monkeypatch.setattr(attribute_marks, "SMALL_BYTES_MAX", 0)
    assert memory.saved() == {}
    data.reads = 0
    data.chosen = [1]
    assert memory.saved()["changed"] == {"dataset.chosen": [1]}


@pytest.mark.parametrize("name", ["x", "labels", "chosen"])
def test_what_is_too_large_for_a_checkpoint_is_a_suspicion(name, monkeypatch):
    monkeypatch.setattr(attribute_marks, "BYTES_MAX", 8)
    data, again, found = Points(), Points(), []
    memory = memory_of(data)
    getattr(data, name)[1] = 7
    saved = memory.saved()
    assert saved["changed"] == {}
    memory_of(again, found).put_back(saved, is_inside=False)
    assert [(each.kind, each.where) for each in found] == [("dataset-changed", f"dataset.{name}")]


def test_what_the_code_before_the_loop_has_set_already_is_left_alone():
    data, again = Points(), Points()
    memory = memory_of(data)
    data.chosen = [3, 3, 3, 3]
    second = memory_of(again)
    again.chosen = [1, 1, 1, 1]
    second.put_back(memory.saved(), is_inside=False)
    assert again.chosen == [1, 1, 1, 1]
    second.put_back(memory.saved(), is_inside=True)
    assert again.chosen == [3, 3, 3, 3]


def test_a_file_that_was_opened_is_no_suspicion_and_is_opened_again():
    data, again, found = Points(), Points(), []
    for each in (data, again):
        each.file, each.is_open = None, False
    memory = memory_of(data)
    data.file, data.is_open = iter(()), True
    memory_of(again, found).put_back(memory.saved(), is_inside=False)
    assert (again.file, again.is_open, found) == (None, False, [])


def test_a_place_that_differs_in_this_program_is_configuration():
    data, again = Points(), Points()
    again.root = "/elsewhere"
    data.root = "/here"
    memory = memory_of(data)
    data.chosen = [2, 2, 2, 2]
    second = memory_of(again)
    second.put_back(memory.saved(), is_inside=False)
    assert again.root == "/elsewhere"
    assert list(second.saved()["changed"]) == ["dataset.chosen"]


class Counting(Points):
    """Samples depend on what was read before: how often, and what came last."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[int, int] = {}
        self.former: torch.Tensor | None = None

    def __getitem__(self, index: int) -> torch.Tensor:
        self.reads += 1
        self.times[index] = self.times.get(index, 0) + 1
        sample = self.x[index] * (1 + 0.1 * self.reads) + 0.01 * self.times[index]
        if self.former is not None:
            sample = 0.8 * sample + 0.2 * self.former
        self.former = self.x[index]
        return sample


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
def test_what_reading_counts_is_counted_once(kind, tmp_path, monkeypatch):
    def shape(session, tick):
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        session.track(model=model, optimizer=optimizer)
        loader = DataLoader(Counting(), 1, shuffle=True)
        for _ in session.epochs(2):
            for batch in session.batches(loader):
                loss = model(batch).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                session.log(loss=loss.item())
                tick()
            tick()

    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    for at in (3, 5, 8):
        assert StruckRun(monkeypatch, tmp_path / f"{at}", shape).result(kind, at) == expected, at


class Shrinking(Points):
    def __init__(self) -> None:
        super().__init__()
        self.length = SAMPLES

    def __len__(self) -> int:
        return self.length


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("part", ["dataset", "sampler"])
def test_a_change_from_the_former_value_before_the_loop_is_made_once(part, kind, tmp_path, monkeypatch):
    class Fraction(torch.utils.data.Sampler):
        def __init__(self) -> None:
            self.share = 1.0

        def __iter__(self):
            return iter(torch.randperm(SAMPLES)[: len(self)].tolist())

        def __len__(self) -> int:
            return max(1, int(SAMPLES * self.share))

    def shape(session, tick):
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        session.track(model=model, optimizer=optimizer)
        data, sampler = Shrinking(), Fraction()
        order = {"shuffle": True} if part == "dataset" else {"sampler": sampler}
        loader = DataLoader(data, 1, **order)
        for _ in session.epochs(3):
            if part == "dataset":
                data.chosen = data.chosen[1:]
                data.length = len(data.chosen)
            else:
                sampler.share *= 0.8
            for batch in session.batches(loader):
                loss = model(batch).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                session.log(loss=loss.item())
                tick()
            tick()

    undisturbed = StruckRun(monkeypatch, tmp_path / "undisturbed", shape)
    expected = undisturbed.result()
    for at in (2, 4, undisturbed.ticks - 1):
        found = StruckRun(monkeypatch, tmp_path / f"{at}", shape).result(kind, at)
        assert found == expected, at
