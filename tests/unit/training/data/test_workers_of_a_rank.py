"""Workers that a rank forked end with it: they hold its connections to the other ranks."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import select
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader, Dataset, IterableDataset

from trainerd.training.data.passes import Pass
from trainerd.training.data.sources import source_for
from trainerd.training.data.workers import drain_signals_blocked, end_with_parent

pytestmark = pytest.mark.torch

_PR_GET_PDEATHSIG = 2


def signal_at_the_parents_end():
    found = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(found), 0, 0, 0)
    return found.value


class Listed(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return signal_at_the_parents_end()


class Streamed(IterableDataset):
    def __iter__(self):
        yield signal_at_the_parents_end()


def of_first_sample(dataset):
    loader = DataLoader(dataset, batch_size=1, num_workers=1, multiprocessing_context="fork")
    source = source_for(loader, seed=0, warn=print)
    batches = source.iterate(Pass((1, 0), 0), 0, lambda: False)
    return int(next(iter(batches))[0])


@pytest.mark.parametrize("dataset", [Listed(), Streamed()], ids=["listed", "streamed"])
def test_a_worker_is_ended_by_the_kernel_with_its_rank(dataset):
    assert of_first_sample(dataset) == signal.SIGKILL
    assert signal_at_the_parents_end() == 0


def test_a_worker_that_another_thread_has_made_may_outlive_that_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(of_first_sample(Listed())))
    thread.start()
    thread.join()
    assert found == [0]


def test_a_forked_worker_does_not_outlive_a_rank_that_is_killed():
    reading, writing = os.pipe()
    rank = os.fork()
    if rank == 0:
        with drain_signals_blocked():
            if os.fork() == 0:
                end_with_parent()
                os.write(writing, b"w")
                time.sleep(60)
        time.sleep(60)
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 1) == b"w"
    os.kill(rank, signal.SIGKILL)
    os.waitpid(rank, 0)
    has_ended, _, _ = select.select([reading], [], [], 20)
    assert has_ended
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_a_worker_of_a_fork_server_ends_with_the_process_that_asked_for_it(monkeypatch):
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(writing)
        monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(sentinel=reading))
        end_with_parent()
        time.sleep(60)
        os._exit(0)
    os.close(reading)
    time.sleep(0.05)
    assert os.waitpid(worker, os.WNOHANG) == (0, 0)
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 1
