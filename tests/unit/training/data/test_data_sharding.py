"""Each sample goes to one rank once, and every rank has as many batches, whatever the numbers are."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from trainerd.training.data.order import batch_order, sharded_order, shards_itself
from trainerd.training.data.sharding import ShardedOrder, ShardPlan
from trainerd.training.engine.position import Position

pytestmark = pytest.mark.torch


def batches_of(size, batch_size):
    return [list(range(begin, min(begin + batch_size, size))) for begin in range(0, size, batch_size)]


def all_orders(batches, world_size, *, resharded_at=0, resharded_after=0, drops_rest=False):
    return [
        ShardedOrder(
            batches, ShardPlan(rank, world_size, resharded_at, resharded_after), drops_rest=drops_rest
        )
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [5, 6, 7, 16, 17, 23, 40, 41])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_every_sample_goes_to_one_rank_once_and_no_rank_has_a_step_more(size, batch_size, world_size):
    orders = all_orders(batches_of(size, batch_size), world_size)
    assert len({len(order) for order in orders}) == 1
    assert sorted(index for order in orders for batch in order for index in batch) == list(range(size))
    assert all(batch for order in orders for batch in order)


@pytest.mark.parametrize("then", [1, 2, 3, 4])
@pytest.mark.parametrize("first", [1, 2, 3, 4])
@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_what_is_left_is_dealt_anew_after_a_change_of_the_number_of_ranks(first, then, rounds):
    batches = batches_of(50, 3)
    used = [
        index for order in all_orders(batches, first) for batch in range(rounds) for index in order[batch]
    ]
    position = Position(batch=rounds, world_size=first)
    position.shard_over(then)
    orders = all_orders(
        batches, then, resharded_at=position.resharded_at, resharded_after=position.resharded_after
    )
    used += [index for order in orders for batch in range(rounds, len(order)) for index in order[batch]]
    assert sorted(used) == list(range(50))


def test_a_last_step_with_fewer_samples_than_ranks_is_the_same_on_all_of_them():
    orders = all_orders(batches_of(50, 3), 3, resharded_at=16, resharded_after=16)  # 50 = 16 * 3 + 2
    assert [list(order) for order in orders] == [[[48, 49]]] * 3


def test_a_change_twice_within_a_loop_counts_both_parts():
    position = Position(batch=3, world_size=2)
    position.shard_over(1)
    position.batch += 4
    position.shard_over(2)
    assert (position.resharded_at, position.resharded_after) == (7, 10)
    position.end_loop()
    assert (position.resharded_at, position.resharded_after) == (0, 0)


def test_no_two_batches_of_an_epoch_share_their_randomness():
    batches = batches_of(41, 3)
    orders = all_orders(batches, 3, resharded_at=2, resharded_after=4)
    numbers = [order.number(batch) for order in orders for batch in range(2, len(order))]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) == 4


def test_drop_last_drops_what_does_not_fill_a_round():
    orders = all_orders(batches_of(20, 4), 2, drops_rest=True)
    assert [len(order) for order in orders] == [2, 2]


def test_a_distributed_sampler_is_looked_through():
    dataset = TensorDataset(torch.arange(21))
    used = []
    for rank in range(2):
        loader = DataLoader(dataset, 4, sampler=DistributedSampler(dataset, 2, rank))
        assert not shards_itself(loader)
        order = batch_order(loader, seed=0, epoch=0, is_sharded_here=True)
        used += [index for batch in sharded_order(loader, order, ShardPlan(rank, 2)) for index in batch]
    assert sorted(used) == list(range(21))


def test_a_sampler_with_a_rank_of_its_own_is_left_to_deal_by_itself():
    class Own(DistributedSampler):
        pass

    dataset = TensorDataset(torch.arange(20))
    loader = DataLoader(dataset, 4, sampler=Own(dataset, 2, 1))
    assert shards_itself(loader)
    order = batch_order(loader, seed=0, epoch=3)
    assert list(sharded_order(loader, order, ShardPlan(1, 2))) == list(order)


def test_one_rank_alone_gets_the_order_as_it_is():
    dataset = TensorDataset(torch.arange(20))
    loader = DataLoader(dataset, 4, shuffle=True)
    order = batch_order(loader, seed=1, epoch=2, is_sharded_here=True)
    assert list(sharded_order(loader, order, ShardPlan())) == list(batch_order(loader, seed=1, epoch=2))


def test_the_position_of_one_rank_says_nothing_of_dealing():
    assert set(Position().state_dict()) == {"step", "epoch", "loop", "batch", "epoch_start_step"}
