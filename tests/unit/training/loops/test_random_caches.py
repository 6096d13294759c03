"""A cache of what was drawn at random is a reason not to be exact, unless it is in the checkpoint."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tests.support.struck import StruckRun, struck_reasons
from trainerd.training.data.read_caches import KIND

pytestmark = pytest.mark.torch

LENGTH = 1 << 14
"""Numbers in a sample: eight of them are 512 KiB, which is too much to be saved at each save."""


@functools.lru_cache
def read(index):
    return torch.full((4,), index / 8) + torch.rand(4)


@functools.cache
def read_plainly(index):
    return torch.full((4,), index / 8)


class Data(Dataset):
    length = 4

    def __init__(self):
        read.cache_clear()
        read_plainly.cache_clear()
        self.cache = {}

    def __len__(self):
        return 8

    def plain(self, index):
        return torch.full((self.length,), index / 8)

    def drawn(self, index):
        return self.plain(index) + torch.rand(self.length)


class InFunction(Data):
    def __getitem__(self, index):
        return read(index)


class InFunctionAndDrawn(Data):
    def __getitem__(self, index):
        flip = torch.rand(())
        return read_plainly(index) * flip + torch.rand(4)


class InMethod(Data):
    @functools.lru_cache(maxsize=None)  # noqa: B019, UP033 - as scripts do
    def read(self, index):
        return self.drawn(index)

    def __getitem__(self, index):
        return self.read(index) + 0.0 * torch.rand(())


class InAttribute(Data):
    def __init__(self):
        super().__init__()
        self.read = functools.cache(self.drawn)

    def __getitem__(self, index):
        return self.read(index)


class InTransforms(Data):
    def __init__(self):
        super().__init__()
        read.cache_clear()
        self.transforms = [read]

    def __getitem__(self, index):
        return self.transforms[0](index)


class InDict(Data):
    length = LENGTH

    def __getitem__(self, index):
        if index not in self.cache:
            self.cache[index] = self.drawn(index)
        return self.cache[index][:4]


class InSmallDict(InDict):
    length = 4


class InDictOfArrays(Data):
    length = LENGTH

    def __getitem__(self, index):
        if index not in self.cache:
            self.cache[index] = np.random.rand(self.length).astype(np.float32)
        return torch.from_numpy(self.cache[index][:4])


class InDictAndDrawn(Data):
    length = LENGTH

    def __getitem__(self, index):
        if index not in self.cache:
            self.cache[index] = self.plain(index)
        return self.cache[index][:4] + torch.rand(4)


class InTensor(Data):
    length = LENGTH

    def __init__(self):
        super().__init__()
        self.cache = torch.zeros(8, self.length)
        self.has = torch.zeros(8, dtype=torch.bool)

    def __getitem__(self, index):
        if not self.has[index]:
            self.cache[index], self.has[index] = self.drawn(index), True
        return self.cache[index][:4].clone()


class MadeLate(Data):
    length = LENGTH

    def __getitem__(self, index):
        if not hasattr(self, "late"):
            self.late = {}
        if index not in self.late:
            self.late[index] = self.drawn(index)
        return self.late[index][:4]


RANDOM = [InFunction, InMethod, InAttribute, InTransforms, InDict, InDictOfArrays, InTensor, MadeLate]
PLAIN = [InFunctionAndDrawn, InSmallDict, InDictAndDrawn]


def shape_of(make, **options):
    def shape(session, tick):
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        session.track(model=model, optimizer=optimizer)
        loader = DataLoader(make(), 2, **{"shuffle": "sampler" not in options} | options)
        for _ in session.epochs(2):
            for x in session.batches(loader):
                loss = model(x).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                session.log(loss=loss.item())
                tick()
            tick()

    return shape


def struck(monkeypatch, folder, shape, kind, at):
    """Return what a run leaves that was struck, and what is said against its resume, by kind."""
    found = StruckRun(monkeypatch, folder, shape).result(kind, at)
    return found, struck_reasons(folder)


WORKERS = [{}, {"num_workers": 2, "persistent_workers": True}]


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("options", WORKERS, ids=["here", "in workers"])
@pytest.mark.parametrize("make", RANDOM)
def test_a_cache_with_random_values_is_named(make, options, kind, tmp_path, monkeypatch):
    shape = shape_of(make, **options)
    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    found, reasons = struck(monkeypatch, tmp_path / "struck", shape, kind, 5)
    assert found != expected
    reason = reasons[KIND]
    assert ("random_caches.py" in reason["where"]) == (make in RANDOM[:4]), reason["where"]
    assert "with other values" in reason["detail"]
    assert reason["hint"]


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("options", WORKERS, ids=["here", "in workers"])
@pytest.mark.parametrize("make", PLAIN)
def test_a_cache_that_loses_nothing_is_not(make, options, kind, tmp_path, monkeypatch):
    shape = shape_of(make, **options)
    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    found, reasons = struck(monkeypatch, tmp_path / "struck", shape, kind, 5)
    assert (found == expected, KIND in reasons) == (True, False)


def test_the_caches_of_workers_that_end_with_their_pass_lose_nothing(tmp_path, monkeypatch):
    shape = shape_of(InFunction, num_workers=2)
    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    found, reasons = struck(monkeypatch, tmp_path / "struck", shape, "SIGTERM", 3)
    assert (found == expected, KIND in reasons) == (True, False)


def test_they_are_named_if_a_sample_is_read_twice_in_a_pass(tmp_path, monkeypatch):
    shape = shape_of(InFunction, num_workers=2, sampler=[0, 2, 4, 6, 1, 3, 5, 7, 0, 2, 4, 6])
    _, reasons = struck(monkeypatch, tmp_path / "struck", shape, "SIGTERM", 6)
    assert "read" in reasons[KIND]["where"]


@functools.cache
def order():
    return torch.randperm(8).tolist()


@functools.cache
def plain_order():
    return list(range(8))


class Ordered(Sampler):
    def __init__(self, ordered):
        order.cache_clear()
        self.ordered = ordered

    def __len__(self):
        return 8

    def __iter__(self):
        first = int(torch.randint(8, ()))
        return iter([(first + index) % 8 for index in self.ordered()])


@pytest.mark.parametrize(("ordered", "is_lost"), [(order, True), (plain_order, False)])
def test_an_order_that_a_sampler_draws_once_is_named(ordered, is_lost, tmp_path, monkeypatch):
    shape = shape_of(Data, sampler=Ordered(ordered))
    monkeypatch.setattr(Data, "__getitem__", Data.plain, raising=False)
    monkeypatch.setattr(Data, "length", 4)

    def in_a_new_process(session, tick):
        order.cache_clear()  # as in a new process
        shape(session, tick)

    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", in_a_new_process).result()
    found, reasons = struck(monkeypatch, tmp_path / "struck", in_a_new_process, "SIGTERM", 3)
    assert (found != expected, KIND in reasons) == (is_lost, is_lost)


def test_under_another_profiler_the_batch_decides(tmp_path, monkeypatch):
    def with_profiler(make):
        def shape(session, tick):
            sys.setprofile(lambda *_: None)
            try:
                shape_of(make)(session, tick)
            finally:
                sys.setprofile(None)

        return shape

    for make in (InFunction, InFunctionAndDrawn):
        _, reasons = struck(monkeypatch, tmp_path / make.__name__, with_profiler(make), "SIGTERM", 5)
        assert KIND in reasons


def test_a_cache_that_is_filled_late_is_judged_then(tmp_path, monkeypatch):
    class Late(Data):
        def __init__(self):
            super().__init__()
            self.reads = 0

        def __len__(self):
            return 64

        def __getitem__(self, index):
            self.reads += 1
            return read(index) if self.reads > 32 else torch.rand(4)

    _, reasons = struck(monkeypatch, tmp_path / "struck", shape_of(Late), "SIGTERM", 31)
    assert KIND in reasons
