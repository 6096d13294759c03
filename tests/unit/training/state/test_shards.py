"""Parts of tensors become wholes, and wholes become parts, without a process group of several ranks."""

from __future__ import annotations

import pytest
import torch

from trainerd.errors import CorruptError
from trainerd.training.state.shards import (
    Shard,
    WholeNeededError,
    has_shard_nodes,
    placed_states,
    whole_document,
)
from trainerd.training.state.tensors import decode_state

pytestmark = pytest.mark.torch

WHOLE = torch.arange(15.0).reshape(5, 3)


def document(name, part, offset, shape=(5, 3)):
    node = {"$shard": {"part": {"$tensor": name}, "shape": list(shape), "offset": list(offset)}}
    return {"objects": {"model": {"$ordered": [["weight", node]]}}}, {name: part}


def put_together(*ranks):
    documents, tables = [each[0] for each in ranks], [each[1] for each in ranks]
    whole, tensors = whole_document(documents, lambda node, rank: decode_state(node, tables[rank]))
    assert not has_shard_nodes(whole)
    return decode_state(whole["objects"], tensors)["model"]["weight"]


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_rows_of_two_ranks_make_the_whole_also_if_one_has_none(cut):
    ranks = document("w", WHOLE[:cut], (0, 0)), document("w", WHOLE[cut:], (cut, 0))
    assert torch.equal(put_together(*ranks), WHOLE)


def test_tiles_and_replicas_of_tiles_make_the_whole():
    places = [((0, 0), (5, 2)), ((0, 2), (5, 1)), ((0, 0), (5, 2)), ((0, 2), (5, 1))]
    ranks = [
        document("w", WHOLE[row : row + height, column : column + width].contiguous(), (row, column))
        for (row, column), (height, width) in places
    ]
    assert torch.equal(put_together(*ranks), WHOLE)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (document("w", WHOLE[3:4], (3, 0)), "do not cover"),
        (document("w", WHOLE[1:], (1, 0)), "do not cover"),
        (document("w", WHOLE[2:], (3, 0)), "lies outside"),
        (document("w", WHOLE[2:], (2, 0), shape=(5, 4)), "of shape"),
        (({"objects": {}}, {}), "differ at"),
        (({"objects": {"model": {"$ordered": [["weight", 7]]}}}, {}), "has no part"),
    ],
    ids=["gap", "overlap", "outside", "other shape", "no such place", "no tensor"],
)
def test_parts_that_are_no_whole_are_damage(second, said):
    with pytest.raises(CorruptError, match=said):
        put_together(document("w", WHOLE[:2], (0, 0)), second)


def test_a_rank_that_holds_all_of_it_has_the_whole():
    plain = {"objects": {"model": {"$ordered": [["weight", {"$tensor": "w"}]]}}}, {"w": WHOLE}
    empty = document("w", WHOLE[:0], (5, 0))
    assert torch.equal(put_together(empty, plain), WHOLE)


def test_an_object_that_holds_all_asks_for_the_whole():
    model = torch.nn.Linear(3, 5, bias=False)
    with pytest.raises(WholeNeededError):
        placed_states({"model": model}, {"model": {"weight": Shard(WHOLE[:2], (5, 3), (0, 0))}})
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    state = optimizer.state_dict() | {"state": {0: {"momentum_buffer": Shard(WHOLE[:2], (5, 3), (0, 0))}}}
    with pytest.raises(WholeNeededError):
        placed_states({"optimizer": optimizer}, {"optimizer": state})
