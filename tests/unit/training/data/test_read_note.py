"""What reading samples changes in the dataset of an exact loader is noted, in this process and in workers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import trainerd
from trainerd.training.data.read_note import NOTE_BYTES, ReadingWatch

pytestmark = pytest.mark.torch


class Points(Dataset[Any]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([float(index)])


class Counting(Points):
    def __init__(self) -> None:
        self.reads = 0

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return super().__getitem__(index) + self.reads


class Late(Counting):
    """Changes with its seventh sample only."""

    def __getitem__(self, index: int) -> Any:
        self.reads += index == 6
        return torch.tensor([float(index)])


class Opening(Points):
    """Opens and counts something once, when it is first read."""

    scale = None

    def __getitem__(self, index: int) -> Any:
        if self.scale is None:
            self.scale = 2.0
        return torch.tensor([self.scale * index])


class Mixing(Points):
    """Mixes each sample with the one before."""

    before = None

    def __getitem__(self, index: int) -> Any:
        sample = float(index)
        mixed, self.before = sample + (self.before or 0.0), sample
        return torch.tensor([mixed])


class Inner(Points):
    def __init__(self) -> None:
        self.base = Counting()

    def __getitem__(self, index: int) -> Any:
        return self.base[index]


class Caching(Points):
    def __init__(self) -> None:
        self.cache: dict[int, Any] = {}

    def __getitem__(self, index: int) -> Any:
        if index not in self.cache:
            self.cache[index] = super().__getitem__(index)
        return self.cache[index]


class LongName(Points):
    def __getitem__(self, index: int) -> Any:
        setattr(self, "x" * 2 * NOTE_BYTES, index + 1)
        return super().__getitem__(index)


CHANGED = {
    Points: "",
    Counting: "dataset.reads",
    Late: "dataset.reads",
    Opening: "",
    Mixing: "dataset.before",
    Inner: "dataset.base.reads",
    Caching: "",
    LongName: ("dataset." + "x" * NOTE_BYTES)[:NOTE_BYTES],
}


def read(dataset: Dataset[Any], **options: Any) -> Any:
    loader = trainerd.exact(DataLoader(dataset, **{"batch_size": 1, **options}))
    for _ in loader:
        pass
    return loader


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", CHANGED)
def test_an_attribute_that_reading_changes_is_noted(kind: type, workers: int) -> None:
    assert read(kind(), num_workers=workers).read_note.path == CHANGED[kind]


@pytest.mark.slow
def test_workers_that_are_spawned_share_the_note() -> None:
    assert read(Counting(), num_workers=1, multiprocessing_context="spawn").read_note.path == "dataset.reads"


def test_a_loader_that_has_read_can_be_copied() -> None:
    loader = read(Counting())
    assert copy.deepcopy(loader.dataset).read_note.path == "dataset.reads"


def test_it_is_told_once_with_the_class_of_the_dataset() -> None:
    loader, told = read(Counting()), []
    watch = ReadingWatch(loader.read_note, told.append)
    watch.look()
    watch.look()
    (reason,) = told
    assert (reason.kind, "its reads changed" in reason.detail) == ("dataset-without-state", True)
    assert "Counting" in reason.where
    watch = ReadingWatch(read(Points()).read_note, told.append)
    watch.look()
    assert len(told) == 1
