"""A wait for a worker's batch: ended by a drain, with torch's private method and without it."""

import multiprocessing
import threading
import time
import traceback

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, dataloader

from trainerd.training.data import batch_wait
from trainerd.training.data.batch_wait import WaitInterruptedError, interruptible
from trainerd.training.data.sources import MapSource, Pass, source_for

STUCK_S_MAX = 20.0
"""After so long a stuck worker gives up: a test that waits for it for ever fails, and leaves no process
behind."""

ITERATOR = dataloader._MultiProcessingDataLoaderIter


class Stuck(Dataset):
    """Samples that come when a file is there."""

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 4

    def __getitem__(self, index):
        deadline_s = time.monotonic() + STUCK_S_MAX
        while not self.path.exists():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self.path} did not come in {STUCK_S_MAX:g} s")
            time.sleep(0.01)
        return torch.tensor(index)


class Refusing(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise LookupError(f"no sample {index}")


def without_the_private_method(monkeypatch):
    """Make torch one whose iterator waits under another name."""
    plain_wait = ITERATOR._try_get_data

    def get_data(self):
        while True:
            has_come, batch = plain_wait(self, self._timeout or 5.0)
            if has_come:
                return batch
            if self._timeout:
                raise RuntimeError(f"DataLoader timed out after {self._timeout} seconds")

    monkeypatch.setattr(ITERATOR, "_get_data", get_data)
    monkeypatch.delattr(ITERATOR, "_try_get_data")


def with_another_signature(monkeypatch):
    """Make torch one whose method for a short wait cannot be told how short."""
    without_the_private_method(monkeypatch)
    monkeypatch.setattr(ITERATOR, "_try_get_data", lambda self: (False, None), raising=False)


@pytest.fixture(
    params=[None, without_the_private_method, with_another_signature],
    ids=["torch as it is", "no _try_get_data", "another signature"],
)
def has_private_method(request, monkeypatch):
    if request.param is not None:
        request.param(monkeypatch)
    return request.param is None


@pytest.fixture(autouse=True)
def no_worker_stays():
    """Fail a test that leaves a worker: they ignore SIGTERM, so the interpreter would wait for them at its
    end."""
    yield
    deadline_s = time.monotonic() + STUCK_S_MAX
    while workers := multiprocessing.active_children():
        if time.monotonic() > deadline_s:
            for worker in workers:
                worker.kill()
            pytest.fail(f"workers stay: {workers}")
        time.sleep(0.05)


def source(loader):
    return source_for(loader, seed=1, warn=lambda message: None)


@pytest.fixture
def stuck(has_private_method, tmp_path):
    """The source of one batch that comes when the file is there, and the file."""
    del has_private_method
    go = tmp_path / "go"
    yield source(DataLoader(Stuck(go), batch_size=4, num_workers=1)), go
    go.touch()


def test_a_wait_for_a_stuck_worker_ends_when_a_drain_is_asked_for(stuck):
    of_map, go = stuck
    assert isinstance(of_map, MapSource)
    is_asked = threading.Event()
    iterator = of_map.iterate(Pass((0,), 0), 0, is_asked.is_set)
    threading.Timer(0.3, is_asked.set).start()
    with pytest.raises(WaitInterruptedError):
        next(iterator)
    go.touch()


def test_the_batch_of_an_interrupted_wait_is_not_lost(stuck):
    of_map, go = stuck
    is_asked = threading.Event()
    is_asked.set()
    iterator = of_map.iterate(Pass((0,), 0), 0, is_asked.is_set)
    for _ in range(2):
        with pytest.raises(WaitInterruptedError):
            next(iterator)
    go.touch()
    is_asked.clear()
    assert [batch.tolist() for batch in iterator] == [[0, 1, 2, 3]]


def test_a_wait_goes_on_where_no_drain_is_asked_for(stuck):
    of_map, go = stuck
    iterator = of_map.iterate(Pass((0,), 0), 0, lambda: False)
    threading.Timer(0.5, go.touch).start()
    assert next(iterator).tolist() == [0, 1, 2, 3]


@pytest.mark.usefixtures("has_private_method")
def test_a_loader_timeout_is_still_one(tmp_path):
    stuck = source(DataLoader(Stuck(tmp_path / "go"), batch_size=4, num_workers=1, timeout=1))
    iterator = stuck.iterate(Pass((0,), 0), 0, lambda: False)
    with pytest.raises(RuntimeError, match="timed out"):
        next(iterator)
    (tmp_path / "go").touch()


@pytest.mark.usefixtures("has_private_method")
def test_an_error_of_a_worker_is_raised_where_the_batch_is_waited_for():
    refusing = source(DataLoader(Refusing(), batch_size=4, num_workers=1))
    with pytest.raises(LookupError, match="no sample 0") as caught:
        next(refusing.iterate(Pass((0,), 0), 0, lambda: False))
    traceback.clear_frames(
        caught.tb
    )  # torch's own frames are in a cycle with the error, and keep the workers


@pytest.mark.usefixtures("has_private_method")
@pytest.mark.parametrize("is_persistent", [True, False], ids=["persistent", "new"])
def test_two_epochs_give_what_one_process_gives(is_persistent):
    data = [torch.tensor(index) for index in range(23)]
    options = {"batch_size": 4, "shuffle": True}
    workers = source(DataLoader(data, num_workers=2, persistent_workers=is_persistent, **options))
    alone = source(DataLoader(data, **options))
    for epoch in range(2):
        which = Pass((epoch,), epoch)
        expected, found = (
            [batch.tolist() for batch in each.iterate(which, 1, lambda: False)] for each in (alone, workers)
        )
        assert found == expected


def test_batches_come_from_torch_itself_where_it_has_the_method(has_private_method):
    iterator = iter(DataLoader([0], num_workers=1))
    assert (interruptible(iterator, lambda: False) is iterator) == has_private_method


@pytest.mark.usefixtures("has_private_method")
def test_no_thread_stays_when_all_batches_are_taken():
    list(source(DataLoader([1, 2, 3], num_workers=1)).iterate(Pass((0,), 0), 0, lambda: False))
    deadline_s = time.monotonic() + STUCK_S_MAX
    while any(thread.name == "trainerd-batch" for thread in threading.enumerate()):
        assert time.monotonic() < deadline_s
        time.sleep(batch_wait.POLL_S / 10)
