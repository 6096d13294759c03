"""What reading changes in the workers of a loader comes back in an attempt with other workers."""

from __future__ import annotations

import itertools
import pickle
import random
import sys
from collections import Counter, defaultdict, deque

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, get_worker_info

from trainerd.training.data.dataset_memory import DatasetMemory, FirstMarks
from trainerd.training.data.loader_view import view_of
from trainerd.training.data.map_source import MapSource
from trainerd.training.data.passes import Pass
from trainerd.training.data.read_caches import LostCache
from trainerd.training.data.worker_states import WorkerBatches, WorkerStates
from trainerd.training.data.worker_watch import ToldBatch, WorkerWatch

pytestmark = pytest.mark.torch

SAMPLES = 7
EPOCHS = 2


class Counting(Dataset):
    """Its samples depend on how many were read, on the worker, and on what that drew at its start."""

    def __init__(self) -> None:
        self.seen = 0
        self.former: list[int] = []
        self.shift = 0.0

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        self.seen += 1
        self.former = [*self.former[-2:], index]
        return torch.tensor([index, self.seen, sum(self.former), get_worker_info().id, self.shift])


class Collate:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, samples: list[torch.Tensor]) -> list[list[float]]:
        self.calls += 1
        return [*(sample.tolist() for sample in samples), [self.calls]]


def start(worker: int) -> None:
    dataset = get_worker_info().dataset
    inner = dataset.datasets[0].dataset if isinstance(dataset, ConcatDataset) else dataset
    inner.shift = worker + torch.rand(()).item() + random.random() + np.random.rand()


def batches_of(dataset, *, persist, stop_at, saved=None, at=(0, 0), found=None):
    """Read from one place to another; return the batches by place, and what is saved there."""
    loader = DataLoader(
        dataset,
        1,
        num_workers=2,
        persistent_workers=persist,
        collate_fn=Collate(),
        worker_init_fn=start,
        shuffle=True,
    )
    source = MapSource(view_of(loader), seed=1, suspect=(found if found is not None else []).append)
    read = {}
    done = at[1]
    for epoch in range(at[0], EPOCHS):
        source.begin(saved, done)
        for number, batch in enumerate(source.iterate(Pass((1, 0), epoch), done, lambda: False), done):
            read[epoch, number] = batch
            if (epoch, number + 1) == stop_at:
                state = source.saved(number + 1)
                source.close()
                return read, state
        saved, done = source.saved(None), 0
    source.close()
    return read, saved


@pytest.mark.parametrize("persist", [False, True])
def test_what_workers_keep_comes_back(persist):
    expected, _ = batches_of(Counting(), persist=persist, stop_at=None)
    assert len({batch[-1][0] for batch in expected.values()}) > 3
    first, saved = batches_of(Counting(), persist=persist, stop_at=(0, 3))
    rest, _ = batches_of(Counting(), persist=persist, stop_at=None, saved=saved, at=(0, 3))
    assert {**first, **rest} == expected


def test_datasets_within_others_come_back_at_the_second_pass():
    def made():
        return ConcatDataset([Subset(Counting(), range(SAMPLES))])

    expected, _ = batches_of(made(), persist=True, stop_at=None)
    first, saved = batches_of(made(), persist=True, stop_at=(1, 1))
    rest, _ = batches_of(made(), persist=True, stop_at=None, saved=saved, at=(1, 1))
    assert {**first, **rest} == expected


class Kept:
    """Something that no checkpoint can hold, in a list."""


class Keeping(Dataset):
    def __init__(self) -> None:
        self.kept = [Kept()]
        self.file = None

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        self.kept.append(Kept())
        self.file = object()
        return torch.tensor([index])


def watched(dataset, index=0):
    watch = WorkerWatch({"dataset": dataset, "collate_fn": None})
    return watch, lambda: watch.look(dataset[index])


def test_what_no_checkpoint_can_hold_is_named_once():
    _, read = watched(Keeping())
    assert [read().unsaved if number == 0 else type(read()) for number in range(2)] == [
        ("dataset.kept",),
        torch.Tensor,
    ]
    found = []
    states = WorkerStates(2, persist=False, suspect=found.append, dataset="Keeping")
    states.take(0, ToldBatch(None, b"", ("dataset.kept",)))
    assert [(each.kind, each.where) for each in found] == [("dataset-changed-in-worker", "dataset.kept")]
    again = []
    WorkerStates(2, persist=False, suspect=again.append, dataset="Keeping").begin(states.saved(None), 0)
    assert again == found


class Late(Counting):
    """Changes for the first time at its 6th sample, which is no power of two."""

    def __init__(self) -> None:
        self.reads = [0]
        self.odd = 0

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 5:
            self.odd += 1
        return torch.tensor([index])


def test_a_number_that_changes_late_is_told_with_the_batch_that_changed_it():
    dataset = Late()
    watch, _ = watched(dataset)
    told = [watch.look(dataset[index]) for index in range(7)]
    assert [type(each) is ToldBatch for each in told] == [False] * 5 + [True, False]
    assert pickle.loads(told[5].state) == {"dataset.odd": 1}


def test_other_numbers_of_workers_are_a_reason():
    saved = {"count": 2, "states": {"0": {"dataset.seen": 3}}, "unsaved": []}
    for count, kinds in ((2, []), (3, ["workers-changed"]), (0, ["workers-changed"])):
        found = []
        WorkerStates(count, persist=False, suspect=found.append, dataset="Counting").begin(saved, 2)
        assert [each.kind for each in found] == kinds


def test_a_state_is_that_of_the_batches_that_were_trained():
    states = WorkerStates(2, persist=False, suspect=lambda _: None, dataset="Counting")
    told = [ToldBatch(number, pickle.dumps({"dataset.seen": number}), ()) for number in range(5)]
    batches = WorkerBatches(iter(told), states.take, 0)
    assert list(batches) == [0, 1, 2, 3, 4]
    assert states.saved(3)["states"] == {"0": {"dataset.seen": 2}, "1": {"dataset.seen": 1}}
    assert states.saved(5)["states"] == {"0": {"dataset.seen": 4}, "1": {"dataset.seen": 3}}
    assert states.saved(None) == {}


class Remembering(Dataset):
    """Keeps what it has read in containers of the module ``collections``."""

    def __init__(self) -> None:
        self.window: deque[int] = deque([0], maxlen=2)
        self.times = Counter({0: 1})
        self.by_kind = defaultdict(int, {0: 1})

    def __getitem__(self, index: int) -> torch.Tensor:
        self.window.append(index)
        self.times[index] += 1
        self.by_kind[index] += 1
        return torch.tensor([index])


def test_containers_of_collections_come_back_as_what_they_were():
    _, read = watched(first := Remembering(), 3)
    told = read()
    watch, _ = watched(second := Remembering())
    watch.put_back(told.state)
    assert vars(second) == vars(first)
    assert [(type(each), getattr(each, "maxlen", None)) for each in vars(second).values()] == [
        (deque, 2),
        (Counter, None),
        (defaultdict, None),
    ]


def test_containers_of_collections_that_reading_changes_here_are_state():
    data = Remembering()
    memory = DatasetMemory({"dataset": data}, lambda _: None, FirstMarks())
    with memory.reading():
        data[3]
    saved = memory.saved()
    assert saved["changed"]["dataset.window"] == [0, 3]
    other = Remembering()
    DatasetMemory({"dataset": other}, lambda _: None, FirstMarks()).put_back(saved, is_inside=True)
    assert vars(other) == vars(data)


class Counted(Dataset):
    def __init__(self) -> None:
        self.count = itertools.count()
        self.files: dict[str, object] = {}

    def __getitem__(self, index: int) -> int:
        self.files[str(index)] = sys.stdout  # of a library, as a file that is opened in a worker
        return next(self.count)


def test_a_count_is_named_here_and_in_a_worker_and_files_are_not():
    _, read = watched(Counted())
    assert read().unsaved == ("dataset.count",)
    data, found = Counted(), []
    memory = DatasetMemory({"dataset": data}, lambda _: None, FirstMarks())
    with memory.reading():
        data[0]
    DatasetMemory({"dataset": Counted()}, found.append, FirstMarks()).put_back(memory.saved(), is_inside=True)
    assert [each.where for each in found] == ["dataset.count"]


def test_the_caches_that_a_checkpoint_names_are_reasons_as_soon_as_a_pass_begins():
    lost = ["dataset.cache", "dataset.cache", "reading samples keeps values here", "keep none"]
    loader = DataLoader(Counting(), 1)
    for state in (
        {"caches": [lost]},
        {"workers": {"count": 0, "states": {}, "unsaved": [], "caches": [lost]}},
    ):
        found = []
        MapSource(view_of(loader), seed=1, suspect=found.append).begin(state, 0)
        assert [(each.kind, each.where) for each in found] == [("random-cache", "dataset.cache")]


def test_the_caches_of_workers_are_in_the_state():
    found = []
    states = WorkerStates(2, persist=True, suspect=found.append, dataset="Counting")
    states.take(0, ToldBatch(None, b"", (), (LostCache("dataset.cache", "data.py:1", "detail", "hint"),)))
    assert states.saved(1)["caches"] == [["dataset.cache", "data.py:1", "detail", "hint"]]
    assert [each.where for each in found] == ["data.py:1"]
