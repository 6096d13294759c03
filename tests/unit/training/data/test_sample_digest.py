"""The running digest of the samples: the same for the same batches, of any kind of index, else another."""

import numpy as np
import pytest
import torch

from trainerd.training.data.sample_digest import BEGINNING, folded_in


def digest(*batches):
    running = BEGINNING
    for batch in batches:
        running = folded_in(running, batch)
    return running


def test_it_tells_samples_order_and_batches_apart():
    orders = [[[0, 1], [2, 3]], [[1, 0], [2, 3]], [[2, 3], [0, 1]], [[0, 1, 2], [3]], [[0, 1]], []]
    assert len({digest(*order) for order in orders}) == len(orders)


def test_it_is_a_fact_of_the_format():
    """Written down in docs/formats.md: a change of it would make every resumed run look different."""
    assert f"{digest([3, 1], [2]):016x}" == "ff061e406e9d3c54"


@pytest.mark.parametrize(
    "batch",
    [(3, 1), np.array([3, 1]), torch.tensor([3, 1]), [np.int64(3), np.int32(1)]],
    ids=["tuple", "array", "tensor", "items"],
)
def test_whole_numbers_of_every_kind_are_the_same(batch):
    assert digest(batch) == digest([3, 1])


def test_texts_and_pairs_have_digests_too_and_one_index_is_a_batch_of_one():
    assert len({digest(["a", "b"]), digest(["ab"]), digest([("a", 1)]), digest([1 << 70]), digest(7)}) == 5
    assert digest(7) == digest([7])


def test_what_cannot_be_said_twice_has_no_digest_from_there_on():
    assert digest([object()]) is None
    assert digest([1], [object()], [2]) is None
