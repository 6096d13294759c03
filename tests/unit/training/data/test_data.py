"""Batches: equal for any number of workers, from any position, and drawn from no global generator."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from trainerd.training.data.sources import IterableSource, Pass, source_for


class Noisy(Dataset):
    """Samples with noise from every generator that transforms use."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()).item(), random.random(), np.random.rand()])


class NoisyMany(Noisy):
    def __getitems__(self, indices):
        return [self[index] for index in indices]


class Stream(IterableDataset):
    def __iter__(self):
        return (torch.tensor([index, torch.rand(()).item()]) for index in range(10))


def collate_with_noise(samples):
    return torch.stack(samples) + torch.rand(())


def source(loader, seed=1):
    return source_for(loader, seed=seed, warn=lambda message: None)


def batches(loader, epoch=0, start=0):
    return list(source(loader).iterate(Pass((0,), epoch), start, lambda: False))


def equal(left, right):
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"num_workers": 1}, {"num_workers": 2, "persistent_workers": True}], ids=str
)
@pytest.mark.parametrize("dataset", [Noisy(), NoisyMany()], ids=["one by one", "many at once"])
def test_batches_are_equal_for_any_number_of_workers(dataset, options):
    expected = batches(DataLoader(Noisy(), batch_size=4, shuffle=True))
    assert equal(batches(DataLoader(dataset, batch_size=4, shuffle=True, **options)), expected)


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_batches_are_equal_for_every_way_to_start_workers(context):
    expected = batches(DataLoader(Noisy(), batch_size=4, shuffle=True))
    loader = DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=1, multiprocessing_context=context)
    assert equal(batches(loader), expected)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 1, 5, 6])
def test_an_epoch_begun_in_the_middle_is_its_tail(workers, start):
    whole = batches(DataLoader(Noisy(), batch_size=4, shuffle=True), epoch=2)
    loader = DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=workers)
    assert equal(batches(loader, epoch=2, start=start), whole[start:])


def test_noise_in_the_collate_function_is_reproduced_too():
    loaders = [
        DataLoader(Noisy(), batch_size=4, collate_fn=collate_with_noise, num_workers=n) for n in (0, 2)
    ]
    assert equal(batches(loaders[0]), batches(loaders[1]))


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_nothing_from_the_global_generators(workers):
    before = (
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state(legacy=False)["state"]["key"].copy(),
    )
    batches(DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=workers))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state(legacy=False)["state"]["key"] == before[2]).all()


def test_a_loader_without_batching_yields_samples():
    samples = batches(DataLoader(Noisy(), batch_size=None, shuffle=True))
    assert [tuple(sample.shape) for sample in samples] == [(4,)] * 23


def test_nothing_is_loaded_to_be_skipped():
    loaded = []

    class Counting(Noisy):
        def __getitem__(self, index):
            loaded.append(index)
            return super().__getitem__(index)

    batches(DataLoader(Counting(), batch_size=4), start=5)
    assert loaded == [20, 21, 22]


def start_of_worker(worker):
    get_worker_info().dataset.marked = True


class Marked(Noisy):
    marked = False

    def __getitem__(self, index):
        return torch.tensor(self.marked)


def test_the_users_worker_init_fn_is_kept_and_sees_the_users_dataset():
    loader = DataLoader(Marked(), batch_size=23, num_workers=1, worker_init_fn=start_of_worker)
    assert batches(loader)[0].all()


def test_an_iterable_dataset_is_skipped_by_consumption_and_said_once():
    said = []
    loader = DataLoader(Stream(), batch_size=2)
    resumed = source_for(loader, seed=1, warn=said.append)
    assert isinstance(resumed, IterableSource)
    torch.manual_seed(3)
    tail = list(resumed.iterate(Pass((0,), 0), 3, lambda: False))
    assert [batch[:, 0].tolist() for batch in tail] == [[6, 7], [8, 9]]
    assert len(said) == 1


def test_a_list_is_an_iterable_like_any_other():
    assert list(source([1, 2, 3]).iterate(Pass((0,), 0), 2, lambda: False)) == [3]


class WithState:
    """Something that knows its own position."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        while self.position < 5:
            self.position += 1
            yield self.position

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


def test_what_has_a_state_of_its_own_is_used_through_it():
    used = source(WithState())
    used.begin({"loader": {"position": 3}}, 3)
    assert list(used.iterate(Pass((0,), 0), 3, lambda: False)) == [4, 5]


def test_two_passes_of_an_epoch_have_orders_and_noise_of_their_own():
    loader = source(DataLoader(Noisy(), batch_size=23, shuffle=True))
    first, second = (next(loader.iterate(Pass((place,), 0), 0, lambda: False)) for place in (0, 1))
    assert first[:, 0].tolist() != second[:, 0].tolist()
    assert sorted(first[:, 1].tolist()) != sorted(second[:, 1].tolist())
