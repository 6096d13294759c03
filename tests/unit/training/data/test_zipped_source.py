"""Several loaders in step: what a pass holds, from any position, with a place of its own for each loader."""

from collections import deque

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.support.stateful_loaders import Positioned
from trainerd.errors import UserError
from trainerd.training.data.sample_digest import BEGINNING, folded_in
from trainerd.training.data.sources import Pass, source_for
from trainerd.training.data.zipped_source import ZippedSource


class Noisy(Dataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()).item()])


class Counting(Positioned):
    """Is at its beginning once it is asked for a sample that it does not have."""

    def __len__(self):
        return 6

    def __iter__(self):
        while self.at < 6:
            self.at += 1
            yield torch.tensor(self.at)
        self.at = 0


def source(loader):
    return source_for(loader, seed=1, warn=lambda message: None)


def zipped(workers=0):
    return ZippedSource(
        [source(DataLoader(Noisy(length), 4, shuffle=True, num_workers=workers)) for length in (20, 20, 33)]
    )


def passed(found, start=0, epoch=0):
    noted = deque()
    batches = list(found.iterate(Pass((1, 0), epoch, None, noted), start, lambda: False))
    return batches, list(noted)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", range(6))
def test_a_pass_goes_on_from_any_tuple(start, workers):
    whole, indices = passed(zipped())
    rest, rest_indices = passed(zipped(workers), start)
    assert len(whole) == 5
    assert all(
        torch.equal(a, b)
        for one, other in zip(rest, whole[start:], strict=True)
        for a, b in zip(one, other, strict=True)
    )
    assert rest_indices == indices[start:]


def test_the_indices_of_a_tuple_are_those_of_its_batches():
    whole, indices = passed(zipped(2))
    assert [tuple(batch[:, 0].int().tolist() for batch in each) for each in whole] == indices
    assert folded_in(BEGINNING, indices[0]) not in {BEGINNING, None}


def test_equal_loaders_have_another_order_and_other_randomness_each():
    (first, second, _), *_ = passed(zipped())[0]
    assert first[:, 0].tolist() != second[:, 0].tolist()
    assert set(first[:, 1].tolist()).isdisjoint(second[:, 1].tolist())


def test_it_ends_with_the_shortest_and_knows_that():
    assert zipped().length(Pass((1, 0), 0)) == 5
    endless = ZippedSource([source(DataLoader(Noisy(20), 4)), source(iter_again())])
    assert endless.length(Pass((1, 0), 0)) is None


def iter_again():
    class Endless:
        def __iter__(self):
            while True:
                yield 0

    return Endless()


def test_the_extent_is_that_of_each():
    assert zipped().extent() == {
        "0.samples": 20,
        "0.batch_size": 4,
        "1.samples": 20,
        "1.batch_size": 4,
        "2.samples": 33,
        "2.batch_size": 4,
    }


def test_a_wait_is_not_interrupted_after_a_source_with_a_state_moved_on():
    asked = []

    class Asking:
        is_idle_at_boundary = True
        ends_silently = False

        def length(self, which):
            return None

        def extent(self):
            return {}

        def iterate(self, which, start, is_draining):
            asked.append(is_draining())
            return iter(range(9))

    for counting, heard in ((True, False), (False, True)):
        first = source(Counting()) if counting else Asking()
        both = ZippedSource([first, Asking()])
        next(both.iterate(Pass((1, 0), 0), 0, lambda: True))
        assert asked[-1] is heard
        assert both.is_idle_at_boundary is not counting


def test_the_same_loader_twice_and_no_loader_are_refused():
    one = source(DataLoader(Noisy(20), 4))
    with pytest.raises(UserError, match="same loader twice"):
        ZippedSource([one, one])
    with pytest.raises(UserError, match="needs a loader"):
        ZippedSource([])
