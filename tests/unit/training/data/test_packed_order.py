"""Orders are packed and come back as they were, whatever a sampler yields."""

import functools
import itertools

import numpy as np
import pytest
import torch

from trainerd.training.data.drawing import drawn
from trainerd.training.data.lazy_order import CHUNK, LazyOrder, LazyShare
from trainerd.training.data.own_streams import OwnStreams
from trainerd.training.data.packed_order import ObjectOrder, PackedOrder, RemainingOrder, packed, restored
from trainerd.training.data.sharding import ShardPlan

NUMBERS = [
    [3, 1, 2],
    [[3, 1], [2]],
    [(3, 1), (2,)],
    [[], [1]],
    [[-5, 70_000], [2**40]],
    [np.int64(3), np.int64(2)],
    [[np.int64(3)], [np.int64(2), np.int64(4)]],
    list(torch.tensor([2, 0, 1])),
    [list(torch.tensor([2, 0])), list(torch.tensor([1]))],
    [torch.tensor([2, 3]), torch.tensor([9])],
    [np.array([3, 4]), np.array([1])],
    [],
]
OTHERS = [["a", "b"], [[1, "a"]], [[2**70], [1]], [[1], [2**70]], [1, [2]], [True, False], [2.5], [[1], (2,)]]


def types(value):
    return (type(value), [type(each) for each in value] if isinstance(value, list | tuple) else None)


@pytest.mark.parametrize(
    ("batches", "kind"),
    [*zip(NUMBERS, itertools.repeat(PackedOrder)), *zip(OTHERS, itertools.repeat(ObjectOrder))],
)
def test_what_is_left_of_an_order_comes_back(batches, kind):
    order = packed(iter(batches))
    assert type(order) is kind
    for start in range(len(batches) + 1):
        left = RemainingOrder(restored(order.remaining(start)), start)
        again = RemainingOrder(restored(left.remaining(start)), start)
        assert len(left) == len(again) == len(batches)
        for number in range(start, len(batches)):
            for each in (order, left, again):
                assert str(each[number]) == str(batches[number])
                assert types(each[number]) == types(batches[number])


def test_a_batch_before_what_is_left_is_refused():
    with pytest.raises(IndexError):
        RemainingOrder(restored(packed([[1], [2]]).remaining(1)), 1)[0]


def test_ten_thousand_indices_take_two_bytes_each():
    order = packed([list(range(begin, begin + 10)) for begin in range(0, 10_000, 10)])
    tree = order.remaining(500)
    assert tree["numbers"].nbytes == 10_000
    assert tree["sizes"].nbytes == 500


class Counted:
    """Counts what is drawn from it."""

    def __init__(self, end=None, length=None):
        self.end, self.length, self.drawn = end, length, 0

    def __iter__(self):
        for number in itertools.count():
            if number == self.end:
                return
            self.drawn += 1
            yield [number, int(torch.randint(1000, ()))]


class Sized(Counted):
    def __len__(self):
        if isinstance(self.length, Exception):
            raise self.length
        return self.length


def draw(sampler, samples=10):
    return drawn(sampler, sampler, OwnStreams({}), seed=3, samples=samples)


@pytest.mark.parametrize("length", [3, 10**10, 0, NotImplementedError(), TypeError()])
def test_a_sampler_without_an_end_is_lazy_whatever_it_says_of_its_length(length):
    sampler = Sized(length=length)
    order = draw(sampler)
    assert isinstance(order, LazyOrder)
    assert sampler.drawn < 3000
    assert order.length == (length if length == 10**10 else None)


@pytest.mark.parametrize("sampler", [Counted(end=40), Sized(end=40, length=7), Sized(end=40, length=90)])
def test_a_sampler_with_an_end_is_listed_whatever_it_says_of_its_length(sampler):
    assert len(draw(sampler)) == 40


def lazy(**options):
    return LazyOrder(Counted(**options), OwnStreams({}), 4, length=None)


@pytest.mark.parametrize("start", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 5])
def test_a_lazy_order_goes_on_from_anywhere(start):
    whole = list(itertools.islice(lazy().numbered_from(0), 5 * CHUNK))
    torch.rand(3)
    rest = list(itertools.islice(lazy().numbered_from(start), 5 * CHUNK - start))
    assert rest == whole[start:]
    assert [number for number, _ in whole] == list(range(5 * CHUNK))


def test_a_lazy_order_that_ends_ends():
    assert len(list(lazy(end=CHUNK + 3).numbered_from(0))) == CHUNK + 3
    assert list(lazy(end=CHUNK).numbered_from(CHUNK)) == []


def test_a_lazy_order_that_is_not_repeated_is_noticed():
    order = lazy()
    list(itertools.islice(order.numbered_from(0), 3 * CHUNK))
    drawn_before = order.drawn_to(2 * CHUNK + 4)
    noticed = []
    for seed in (4, 5):
        again = LazyOrder(Counted(), OwnStreams({}), seed, length=None)
        again.expect(drawn_before, functools.partial(noticed.append, seed))
        next(again.numbered_from(2 * CHUNK + 4))
    assert noticed == [5]


def test_ranks_share_a_lazy_order():
    whole = [batch for _, batch in itertools.islice(lazy().numbered_from(0), 40)]
    plans = [ShardPlan(rank, 2, resharded_at=3, resharded_after=5) for rank in range(2)]
    shares = [
        [
            batch
            for _, batch in itertools.islice(LazyShare(lazy(), plan, shards_itself=False).numbered_from(4), 5)
        ]
        for plan in plans
    ]
    assert [batch for pair in zip(*shares, strict=True) for batch in pair] == whole[7:17]
