"""A stream of batches for a framework goes on from the end of a pass, and counts what was trained on."""

import pytest
from torch.utils.data import DataLoader, IterableDataset

from tests.support.stateful_loaders import AtMultiples
from trainerd.training.data.feed import Feed

pytestmark = pytest.mark.torch


class Counted(AtMultiples):
    """Has a length, and yields where it is."""

    def __len__(self):
        return 4

    def sample(self):
        return self.at


class Samples(IterableDataset):
    """Counts on from pass to pass."""

    def __init__(self):
        self.seen = 0

    def __iter__(self):
        for _ in range(3):
            self.seen += 1
            yield self.seen


def stream():
    return Feed(1, suspect=lambda reason: None, warn=lambda message: None)


def test_nothing_is_left_of_a_pass_whose_batches_were_all_taken():
    former, resumed, loader = stream(), stream(), Counted()
    batches = former.iterate(Counted())
    assert [next(batches) for _ in range(4)] == [1, 2, 3, 4]  # no end was seen
    before = former.state_dict()
    resumed.load_state_dict(before)
    assert list(resumed.iterate(loader)) == []
    assert resumed.state_dict() == before
    assert list(resumed.iterate(loader)) == [5, 6, 7, 8]
    assert (resumed.state_dict()["number"], resumed.state_dict()["batch"]) == (1, 4)


def test_the_next_pass_begins_with_what_the_one_before_has_left():
    loader = DataLoader(Samples(), batch_size=None)
    former, resumed = stream(), stream()
    assert list(former.iterate(loader)) == [1, 2, 3]
    resumed.load_state_dict(former.state_dict())
    assert list(resumed.iterate(DataLoader(Samples(), batch_size=None), is_next=True)) == [4, 5, 6]


def test_a_batch_that_is_only_fetched_ahead_is_not_taken():
    class Unsized:
        def __iter__(self):
            return iter([[0, 1], [2], [3, 4]])

    feed = stream()
    batches = feed.iterate(DataLoader([10, 11, 12, 13, 14], batch_sampler=Unsized()), is_ahead=True)
    next(batches)
    taken = []
    for _ in range(3):
        next(batches, None)
        taken.append(feed.taken())
    assert taken == [[[0, 1]], [[2]], [[3, 4]]]
