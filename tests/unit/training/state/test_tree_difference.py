"""The first difference between two trees of state, bit for bit."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

from trainerd.training.state.shards import Shard
from trainerd.training.state.tree_difference import first_difference

pytestmark = pytest.mark.torch

NAN = float("nan")


@pytest.mark.parametrize(
    "tree",
    [
        {"a": [1, (2.0, "x")], "b": {"c": torch.tensor([NAN, -0.0])}},
        [NAN, None, True, b"x", {1, 2}],
        torch.empty(0, 2),
        torch.tensor(1.0),
        torch.ones(2).to_sparse(),
        torch.ones(2, 3, dtype=torch.bfloat16).t(),
        np.arange(3),
    ],
    ids=str,
)
def test_a_tree_equals_itself(tree):
    assert first_difference(tree, tree, "x") is None


def test_a_part_of_a_sharded_tensor_is_compared_by_its_place_and_its_values():
    def shard(*values, offset=0):
        return {"weight": Shard(torch.tensor(values), (4,), (offset,))}

    assert first_difference(shard(1.0, 2.0), shard(1.0, 2.0), "") is None
    differs = first_difference(shard(1.0, 2.0), shard(1.0, 3.0), "")
    assert (differs.path, differs.detail[:20]) == ("weight", "[1]: 2.0 became 3.0 "[:20])
    moved = first_difference(shard(1.0, 2.0), shard(1.0, 2.0, offset=2), "")
    assert moved.detail == "the part at [0] of [4] became the part at [2] of [4]"


def test_kinds_of_mappings_make_no_difference():
    assert first_difference({"a": 1}, OrderedDict(a=1), "x") is None


@pytest.mark.parametrize(
    ("then", "now", "path", "detail"),
    [
        ({"a": 1}, {"a": 2}, "x.a", "1 became 2"),
        ({"a": 1}, {"a": 1.0}, "x.a", "1 became 1.0"),
        ({"a": 1}, {"a": True}, "x.a", "1 became True"),
        ({"a": 0.0}, {"a": -0.0}, "x.a", "0.0 became -0.0"),
        ({"a": NAN}, {"a": 1.0}, "x.a", "nan became 1.0"),
        ({"a": 1}, {}, "x.a", "it is missing"),
        ({}, {"a": 1}, "x.a", "it is new"),
        ([1, 2], [1], "x", "2 entries became 1"),
        ([1, [2, 3]], [1, [2, 4]], "x[1][1]", "3 became 4"),
        (torch.zeros(2), torch.tensor([0.0, 1.0]), "x", "[1]: 0.0 became 1.0 (1 of 2 values differ)"),
        (torch.zeros(2), torch.tensor([0.0, -0.0]), "x", "[1]: 0.0 became -0.0 (1 of 2 values differ)"),
        (torch.tensor(1), torch.tensor(2), "x", "1 became 2 (1 of 1 value differs)"),
        (torch.zeros(2), torch.zeros(2, 1), "x", "float32 [2] became float32 [2, 1]"),
        (torch.zeros(2), torch.zeros(2).double(), "x", "float32 [2] became float64 [2]"),
        (torch.zeros(2), [0.0, 0.0], "x", "float32 [2] became [0.0, 0.0]"),
        (torch.ones(2).to_sparse(), torch.zeros(2).to_sparse(), "x", "the tensor differs"),
    ],
)
def test_the_first_difference_is_named(then, now, path, detail):
    found = first_difference(then, now, "x")
    assert (found.path, found.detail) == (path, detail)


def test_the_index_is_that_of_the_tensor_as_it_is_shaped():
    then, now = torch.zeros(3, 4), torch.zeros(3, 4)
    now[1, 2:] = 5
    assert first_difference(then, now, "m.w").detail == "[1, 2]: 0.0 became 5.0 (2 of 12 values differ)"
    assert first_difference(then.t(), now.t(), "m.w").detail.startswith("[2, 1]: 0.0 became 5.0")


def test_what_is_left_out_is_not_compared():
    then, now = {"a": 1, "b": {"c": 1, "d": 1}}, {"b": {"c": 2, "d": 1, "e": 1}}
    left_out = {"x.a", "x.b.c", "x.b.e"}
    assert first_difference(then, now, "x", is_left_out=left_out.__contains__) is None
    assert first_difference(then, now, "x", is_left_out={"x.a"}.__contains__).path == "x.b.c"
