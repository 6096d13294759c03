"""Parts of tensors become wholes, and wholes become parts, without a process group of several ranks."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor import Shard as PlacedShard

from trainerd.errors import CorruptError, UnsupportedValueError
from trainerd.training.state.shards import (
    Shard,
    WholeNeededError,
    has_shard_nodes,
    own_shard,
    place_of_part,
    placed_states,
    whole_document,
)
from trainerd.training.state.tensor_decoding import decode_state

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


def place_as_torch_says(shape, mesh_shape, placements, coordinate):
    utilities = pytest.importorskip("torch.distributed.tensor._utils")
    compute = getattr(utilities, "_compute_local_shape_and_global_offset", None)
    if compute is None:
        pytest.skip("this torch does not tell")
    return compute(shape, mesh_shape, list(coordinate), placements)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize(
    "cut", [(0, None), (None, 0), (0, 1), (1, 0), (0, 0), (1, 1)], ids=lambda cut: "x".join(map(str, cut))
)
def test_a_part_begins_where_torch_says_that_it_does(length, cut):
    shape, mesh = (length, 7), (2, 3)
    placements = [Replicate() if dimension is None else PlacedShard(dimension) for dimension in cut]
    for coordinate in itertools.product(*map(range, mesh)):
        cuts = [
            (dimension, parts, number)
            for dimension, parts, number in zip(cut, mesh, coordinate, strict=True)
            if dimension is not None
        ]
        size, offset = place_of_part(shape, cuts)
        torchs_size, torchs_offset = place_as_torch_says(shape, mesh, placements, coordinate)
        assert size == tuple(torchs_size)
        if 0 not in size:
            assert offset == tuple(torchs_offset)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_parts_are_cut_as_torch_chunks(ranks):
    """What torch documents of `Shard`, and needs none of its private functions."""
    chunks = torch.arange(5).chunk(ranks)
    for rank in range(ranks):
        (size,), (offset,) = place_of_part((5,), [(0, ranks, rank)])
        expected = chunks[rank].tolist() if rank < len(chunks) else []
        assert list(range(offset, offset + size)) == expected


@pytest.fixture
def mesh_of_one():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_a_part_that_is_not_of_the_size_it_should_be_is_refused(mesh_of_one):
    tensor = DTensor.from_local(WHOLE, mesh_of_one, [PlacedShard(0)])
    assert torch.equal(own_shard(tensor, "w").part, WHOLE)
    wrong = DTensor.from_local(
        WHOLE, mesh_of_one, [PlacedShard(0)], run_check=False, shape=torch.Size((9, 3)), stride=(3, 1)
    )
    with pytest.raises(UnsupportedValueError, match="should hold"):
        own_shard(wrong, "w")
