"""The digest of a batch's contents: equal for equal batches, another one for any other, None if unknown."""

import dataclasses
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch

from trainerd.training.data.batch_content import content_digest

Pair = namedtuple("Pair", "x y")  # noqa: PYI024 - as users write it


@dataclasses.dataclass
class Sample:
    x: torch.Tensor
    y: int


class Plain:
    def __init__(self, x):
        self.x = x


BATCHES = {
    "tensor": lambda: torch.arange(6.0).reshape(2, 3),
    "shape": lambda: torch.arange(6.0).reshape(3, 2),
    "dtype": lambda: torch.arange(6).reshape(2, 3),
    "value": lambda: torch.arange(6.0).reshape(2, 3) + 1,
    "negative zero": lambda: torch.tensor([-0.0]),
    "zero": lambda: torch.tensor([0.0]),
    "empty": lambda: torch.empty(0, 3),
    "scalar": lambda: torch.tensor(1.0),
    "bfloat16": lambda: torch.ones(2, dtype=torch.bfloat16),
    "complex": lambda: torch.ones(2, dtype=torch.complex64).conj() * 1j,
    "array": lambda: np.arange(3),
    "number": lambda: 1,
    "true": lambda: True,
    "float": lambda: 1.0,
    "text": lambda: "1",
    "bytes": lambda: b"1",
    "none": lambda: None,
    "list": lambda: [1, 2],
    "nested": lambda: [[1], 2],
    "dict": lambda: {"x": torch.ones(2), "y": [1]},
    "set": lambda: {"a", "b"},
    "pair": lambda: Pair(torch.ones(2), 1),
    "sample": lambda: Sample(torch.ones(2), 1),
    "plain": lambda: Plain(torch.ones(2)),
}


@pytest.mark.parametrize("name", BATCHES)
def test_equal_batches_have_equal_digests(name):
    assert content_digest(BATCHES[name]()) == content_digest(BATCHES[name]()) is not None


def test_all_of_these_batches_have_different_digests():
    digests = [content_digest(make()) for make in BATCHES.values()]
    assert len(set(digests)) == len(digests)


def test_strides_and_the_kind_of_mapping_make_no_difference():
    assert content_digest(torch.ones(2, 3).t()) == content_digest(torch.ones(3, 2))
    assert content_digest({"a": 1}) == content_digest(OrderedDict(a=1))


def test_parts_do_not_run_into_each_other():
    assert content_digest(["ab", "c"]) != content_digest(["a", "bc"])
    assert content_digest([1, [2]]) != content_digest([1, 2])


@pytest.mark.parametrize(
    "batch",
    [
        object(),
        lambda: 1,
        [1, object()],
        {1, object()},
        np.array([object()]),
        torch.ones(2).to_sparse(),
        Plain,
    ],
    ids=["object", "function", "list", "set", "object array", "sparse tensor", "class"],
)
def test_what_has_no_stable_bytes_has_no_digest(batch):
    assert content_digest(batch) is None


def test_a_batch_that_contains_itself_has_no_digest():
    batch = []
    batch.append(batch)
    assert content_digest(batch) is None
