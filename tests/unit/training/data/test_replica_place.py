"""Which share of the batches a rank gets, and what the ranks of one run may say of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader, DistributedSampler

from trainerd.errors import UserError
from trainerd.training.data.replica_place import ReplicaPlace, StatedSharding, place_of_sampler
from trainerd.training.distributed.joint_places import SaidPlace, contradiction
from trainerd.training.engine.position import Position

pytestmark = pytest.mark.torch


def test_what_a_script_says_is_its_place():
    assert StatedSharding().place(rank=3, world_size=4) is None
    assert StatedSharding(dp_rank=1, dp_size=2).place(rank=3, world_size=4) == ReplicaPlace(1, 2)
    assert StatedSharding(dp_rank=0, dp_size=1).place(rank=3, world_size=4) == ReplicaPlace(0, 1)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"dp_rank": 1}, "dp_size=None"),
        ({"dp_size": 2}, "dp_rank=None"),
        ({"dp_rank": "1", "dp_size": 2}, "dp_rank='1'"),
        ({"dp_rank": True, "dp_size": 2}, "dp_rank=True"),
        ({"dp_rank": 0, "dp_size": 3}, "not so many replicas of equal size"),
        ({"dp_rank": 0, "dp_size": 8}, "not so many replicas of equal size"),
        ({"dp_rank": 0, "dp_size": 0}, "not so many replicas of equal size"),
        ({"dp_rank": 2, "dp_size": 2}, "out of range"),
        ({"dp_rank": -1, "dp_size": 2}, "out of range"),
        ({"mesh": "dp"}, "not a torch DeviceMesh"),
        ({"mesh": object(), "dp_rank": 0, "dp_size": 1}, "both say"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_a_place_is_refused(said, words):
    with pytest.raises(UserError, match=words):
        StatedSharding(**said).place(rank=0, world_size=4)


def test_the_place_of_a_sampler():
    data = list(range(8))
    assert place_of_sampler(DataLoader(data, 2)) is None
    assert place_of_sampler(iter(data)) is None
    through = DataLoader(data, 2, sampler=DistributedSampler(data, 2, 1))
    assert place_of_sampler(through) == (ReplicaPlace(1, 2), True)
    own = SimpleNamespace(batch_sampler=None, sampler=SimpleNamespace(rank=2, num_replicas=4))
    assert place_of_sampler(own) == (ReplicaPlace(2, 4), False)


def said(*places, model=None):
    return {
        rank: SaidPlace(number, size, (model or {}).get(rank, (rank,)), "model.weight")
        for rank, (number, size) in enumerate(places)
    }


PAIRS = {0: (0, 1), 1: (0, 1), 2: (2, 3), 3: (2, 3)}


def test_places_that_agree():
    assert contradiction(said((0, 4), (1, 4), (2, 4), (3, 4)), 4) is None
    assert contradiction(said((0, 2), (0, 2), (1, 2), (1, 2), model=PAIRS), 4) is None
    assert contradiction(said((0, 1), (0, 1), (0, 1), (0, 1), model=PAIRS), 4) is None
    assert contradiction(said((0, 2)), 4) is None  # the others have not come yet


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (said((0, 4), (1, 4), (2, 4), (3, 4), model=PAIRS), "ranks 0 and 1 would get other batches"),
        (said((0, 2), (1, 2), model=PAIRS), "ranks 0 and 1 would get other batches"),
        (said((0, 2), (0, 2), (1, 4)), "rank 0 deals the batches to 2 replicas, rank 2 to 4"),
        (said((0, 2), (0, 2), (0, 2), (1, 2)), "of 4 ranks, 3 would get the batches of replica 0 of 2"),
        (said((0, 2), (0, 2), (0, 2), (0, 2)), "of 4 ranks, 4 would get the batches of replica 0 of 2"),
    ],
    ids=["world", "early", "sizes", "uneven", "missing"],
)
def test_places_that_contradict_one_another(places, words):
    assert words in str(contradiction(places, 4))


def test_a_position_is_left_as_it_was_by_as_many_replicas():
    position = Position(batch=5, world_size=2)
    position.shard_over(2)
    assert position == Position(batch=5, world_size=2)
