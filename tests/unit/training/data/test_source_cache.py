"""Sources are kept for as long as their loaders are used, and no longer."""

import gc
import multiprocessing
import weakref

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from trainerd.training.data.passes import Pass
from trainerd.training.data.source_cache import OTHERS_MAX, SourceCache

DATA = TensorDataset(torch.arange(8))


class Listed:
    def __iter__(self):
        return iter(range(3))


def cache():
    return SourceCache(lambda message: None, lambda reason: None)


def test_a_loader_has_one_source():
    sources, loader = cache(), DataLoader(DATA, 2)
    assert sources.source(loader, seed=0, epoch=0) is sources.source(loader, seed=0, epoch=5)


def test_the_source_of_a_stock_loader_goes_with_it():
    before = set(multiprocessing.active_children())  # of earlier tests, not yet collected
    sources = cache()
    data = TensorDataset(torch.arange(8))
    reference = weakref.ref(data)
    loader = DataLoader(data, 2, num_workers=1, persistent_workers=True)
    assert len(list(sources.source(loader, seed=0, epoch=0).iterate(Pass((1, 0), 0), 0, bool))) == 4
    (worker,) = set(multiprocessing.active_children()) - before
    del loader, data
    assert len(sources) == 0
    worker.join(10)
    assert not worker.is_alive()
    gc.collect()
    assert reference() is None


def test_the_source_of_another_loader_goes_when_an_epoch_has_passed_without_it():
    sources = cache()
    references = []
    for epoch in range(6):
        made = Listed()
        references.append(weakref.ref(made))
        sources.source(made, seed=0, epoch=epoch)
        del made
    assert [reference() is not None for reference in references] == [False] * 4 + [True] * 2


def test_without_epochs_the_oldest_of_many_go():
    sources = cache()
    kept = Listed()
    for _ in range(3 * OTHERS_MAX):
        sources.source(Listed(), seed=0, epoch=0)
        sources.source(kept, seed=0, epoch=0)
    assert len(sources) <= OTHERS_MAX + 2
    assert sources.source(kept, seed=0, epoch=0) is sources.source(kept, seed=0, epoch=0)


@pytest.mark.parametrize("made", [lambda: DataLoader(DATA, 2), Listed])
def test_clear_lets_go_of_all(made):
    sources, loader = cache(), made()
    source = weakref.ref(sources.source(loader, seed=0, epoch=0))
    sources.clear()
    gc.collect()
    assert len(sources) == 0
    assert source() is None
