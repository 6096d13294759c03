"""Datasets and samplers that change, made before the loop over epochs or within it: one of these is named."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from tests.support.in_process import attempt
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume

pytestmark = pytest.mark.torch

SAMPLES = 8


class Points(Dataset):
    reads = 0

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return torch.tensor([float(index), 1.0]) / SAMPLES


class Counted(Points):
    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index) + self.reads


class Stream(IterableDataset):
    passes = 0

    def __iter__(self):
        self.passes += 1
        return (torch.tensor([float(each), float(self.passes)]) for each in range(SAMPLES))


class Turning(Sampler):
    passes = 0

    def __len__(self):
        return SAMPLES

    def __iter__(self):
        self.passes += 1
        return iter([(index * (2 * self.passes + 1)) % SAMPLES for index in range(SAMPLES)])


PARTS = {
    "sampler": lambda: {"dataset": Points(), "sampler": Turning()},
    "dataset": lambda: {"dataset": Counted()},
    "stream": lambda: {"dataset": Stream()},
    "nothing that changes": lambda: {"dataset": Points(), "shuffle": True},
}


@pytest.mark.parametrize("is_late", [True, False])
@pytest.mark.parametrize("part", PARTS)
def test_what_changes_and_is_made_within_the_loop_over_epochs_is_named(tmp_path, part, is_late):
    def loop(session, tick):
        session.track(model=nn.Linear(1, 1))
        parts = PARTS[part]()
        for _ in session.epochs(3):
            loader = DataLoader(batch_size=4, **(PARTS[part]() if is_late else parts))
            for batch in session.batches(loader):
                session.log(loss=batch.sum())
                tick()

    assert not attempt(tmp_path, loop, crash_at=3, steps=100)
    assert attempt(tmp_path, loop, steps=100)
    found = read_resume(RunPaths(tmp_path).resume)
    assert ("made-in-epoch" in str(found)) == (is_late and part != "nothing that changes")
