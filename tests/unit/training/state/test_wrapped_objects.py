"""What `track` does with the wrappers of torch.distributed, in a process group of one."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.optim import PostLocalSGDOptimizer, ZeroRedundancyOptimizer

from trainerd.errors import MismatchError, UserError
from trainerd.training.state.objects import TrackedObjects

pytestmark = pytest.mark.torch


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_fsdp1_is_refused_with_the_way_out(group):
    model = nn.Sequential(FullyShardedDataParallel(nn.Linear(4, 4), device_id=torch.device("cpu")))
    with pytest.raises(UserError, match="FSDP1") as raised:
        TrackedObjects().track("model", model)
    assert "fully_shard" in str(raised.value.hint)


def test_the_learning_rate_of_a_zero_optimizer_is_restored_outside_too(group):
    outer = ZeroRedundancyOptimizer(nn.Linear(4, 4).parameters(), torch.optim.SGD, lr=0.5)
    objects = TrackedObjects()
    objects.track("optimizer", outer)
    assert objects["optimizer"] is outer.optim
    outer.param_groups[0]["lr"] = 0.25  # as a scheduler does
    objects.module_changes()
    assert outer.optim.param_groups[0]["lr"] == 0.25
    outer.optim.param_groups[0]["lr"] = 0.125  # as loading its state does
    objects.put_back({})
    assert outer.param_groups[0]["lr"] == 0.125


def test_a_zero_optimizer_of_another_number_of_ranks_is_refused_by_that_number(group):
    outer = ZeroRedundancyOptimizer(nn.Linear(4, 4).parameters(), torch.optim.SGD, lr=0.5)
    for value in (outer, outer.optim):
        objects = TrackedObjects()
        objects.track("optimizer", value)
        objects.check_ranks("step-000000006", saved=3, now=3)
        with pytest.raises(MismatchError, match=r"of 3 ranks, and optimizer is a Zero.* 2 ranks") as raised:
            objects.check_ranks("step-000000006", saved=3, now=2)
        assert "go on with 3 ranks" in str(raised.value.hint)
    plain = TrackedObjects()
    plain.track("optimizer", torch.optim.SGD(nn.Linear(4, 4).parameters(), lr=0.5))
    plain.check_ranks("step-000000006", saved=3, now=2)


def test_the_wrapper_of_an_inner_optimizer_is_found(group):
    outer = ZeroRedundancyOptimizer(nn.Linear(4, 4).parameters(), torch.optim.SGD, lr=0.5)
    objects = TrackedObjects()
    objects.track("optimizer", outer.optim)
    outer.optim.param_groups[0]["lr"] = 0.125
    objects.put_back({})
    assert outer.param_groups[0]["lr"] == 0.125


def test_the_steps_of_an_averager_are_part_of_the_state(group):
    def made():
        averager = PeriodicModelAverager(period=2, warmup_steps=5)
        return PostLocalSGDOptimizer(torch.optim.SGD(nn.Linear(4, 4).parameters(), lr=0.5), averager)

    former, later, objects, others = made(), made(), TrackedObjects(), TrackedObjects()
    objects.track("optimizer", former)
    others.track("optimizer", later)
    former.averager.step = 7
    others.put_back(objects.module_changes())
    assert later.averager.step == 7
