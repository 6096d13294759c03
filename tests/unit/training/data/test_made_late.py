"""Datasets and samplers that change, made before the loop over epochs or within it: one of these is named."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from tests.support.in_process import attempt, undisturbed
from tests.support.training_runs import result_of
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


class Bare:
    """Of no class of torch's."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return (torch.tensor([float(each), float(self.passes)]) for each in range(2))


class Collated:
    calls = 0

    def __call__(self, samples):
        self.calls += 1
        return torch.stack(samples) + self.calls


class Positioned:
    """Knows its position, and counts its passes."""

    def __init__(self):
        self.passes = self.position = 0

    def __len__(self):
        return 2

    def __iter__(self):
        self.passes += self.position == 0
        while self.position < 2:
            self.position += 1
            yield torch.tensor([float(self.position), float(self.passes)])
        self.position = 0

    def state_dict(self):
        return {"passes": self.passes, "position": self.position}

    def load_state_dict(self, state):
        self.passes, self.position = state["passes"], state["position"]


class Remembering(Counted):
    """Has a state of its own, for `StatefulDataLoader`."""

    def state_dict(self):
        return {"reads": self.reads}

    def load_state_dict(self, state):
        self.reads = state["reads"]


def of_torchdata(**parts):
    loaders = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    return loaders.StatefulDataLoader(batch_size=4, **parts)


def stock(**parts):
    return DataLoader(batch_size=4, **parts)


LOADERS = {
    "sampler": lambda: stock(dataset=Points(), sampler=Turning()),
    "dataset": lambda: stock(dataset=Counted()),
    "stream": lambda: stock(dataset=Stream()),
    "collate function": lambda: stock(dataset=Points(), collate_fn=Collated()),
    "iterable": Bare,
    "iterable with a state": Positioned,
    "dataset with a state": lambda: of_torchdata(dataset=Remembering()),
}
UNCHANGING = {
    "dataset in workers": lambda: stock(dataset=Counted(), num_workers=1),
    "stock": lambda: stock(dataset=Points(), shuffle=True),
    "generator": lambda: stock(dataset=Points(), shuffle=True, generator=torch.Generator().manual_seed(3)),
    "stateful": lambda: of_torchdata(dataset=Points(), shuffle=True),
}


def run_of(make, made):
    """Return a run of three epochs of two batches; its loader is made `before`, `late` once, or in `each`."""

    def loop(session, tick):
        session.track(model=nn.Linear(1, 1))
        loader = make() if made == "before" else None
        for _ in session.epochs(3):
            if loader is None or made == "each":
                loader = make()
            for batch in session.batches(loader):
                session.log(loss=batch.sum())
                tick()

    return loop


def resumed_after(tmp_path, loop, epochs):
    """Crash a run after so many epochs and finish it. Tell whether its batches are right, and the reasons."""
    expected = undisturbed(tmp_path / "left-alone", loop).rows
    run = tmp_path / "run"
    assert not attempt(run, loop, crash_at=2 * epochs + 1, steps=100)
    assert attempt(run, loop, steps=100)
    reasons = {reason.kind for reason in read_resume(RunPaths(run).resume).reasons}
    return result_of(run).rows == expected, reasons


@pytest.mark.parametrize("kind", LOADERS)
def test_what_is_made_for_each_epoch_begins_afresh_and_is_named_after_the_first_one(tmp_path, kind):
    loop = run_of(LOADERS[kind], "each")
    assert resumed_after(tmp_path / "1", loop, 1) == (True, {"made-in-epoch"})
    assert resumed_after(tmp_path / "2", loop, 2) == (True, set())


SOME = ("sampler", "collate function", "iterable with a state")
MOST = [kind if kind in SOME else pytest.param(kind, marks=pytest.mark.slow) for kind in LOADERS]


@pytest.mark.parametrize("kind", MOST)
def test_what_is_made_once_within_the_loop_goes_on_and_is_named_after_the_first_epoch(tmp_path, kind):
    loop = run_of(LOADERS[kind], "late")
    assert resumed_after(tmp_path / "1", loop, 1)[1] == {"made-in-epoch"}
    assert resumed_after(tmp_path / "2", loop, 2) == (True, set())


@pytest.mark.parametrize("kind", MOST)
def test_what_is_made_before_the_loop_goes_on(tmp_path, kind):
    assert resumed_after(tmp_path, run_of(LOADERS[kind], "before"), 1) == (True, set())


@pytest.mark.parametrize(
    "made", ["each", *(pytest.param(made, marks=pytest.mark.slow) for made in ("late", "before"))]
)
@pytest.mark.parametrize("kind", UNCHANGING)
def test_what_does_not_change_is_exact_wherever_it_is_made(tmp_path, kind, made):
    assert resumed_after(tmp_path, run_of(UNCHANGING[kind], made), 1) == (True, set())


def test_a_part_that_is_kept_goes_on_beside_one_that_is_made_for_each_epoch(tmp_path):
    def loop(session, tick):
        session.track(model=nn.Linear(1, 1))
        dataset = Counted()
        for _ in session.epochs(3):
            for batch in session.batches(stock(dataset=dataset, sampler=Turning())):
                session.log(loss=batch.sum())
                tick()

    assert resumed_after(tmp_path, loop, 2) == (True, set())
