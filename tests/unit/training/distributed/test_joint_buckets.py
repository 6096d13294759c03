"""When the order of DDP's buckets cannot be put back, the resume is suspect."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402 - only where torch is
from torch import nn  # noqa: E402

from trainerd.training.distributed.joint_buckets import JointBuckets  # noqa: E402
from trainerd.training.distributed.rank_store import Ranks  # noqa: E402
from trainerd.training.state import ddp_reducer  # noqa: E402
from trainerd.training.state.ddp_buckets import BucketOrders  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Run:
    """What one attempt has of a model whose hook makes the order matter."""

    def __init__(self) -> None:
        self.model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
        self.model.register_comm_hook(None, lambda _, bucket: completed(bucket.buffer()))
        self.orders = BucketOrders({"model": self.model})
        self.reasons = []
        ranks = Ranks(dist.HashStore(), rank=0, world_size=1)
        self.buckets = JointBuckets(ranks, self.orders, self.reasons.append)
        self.buckets.watch()

    def step(self) -> None:
        self.model(torch.ones(3, 4)).sum().backward()
        self.buckets.step_done()


def completed(value):
    future = torch.futures.Future()
    future.set_result(value)
    return future


def test_a_checkpoint_of_a_version_without_orders_is_suspect(group):
    run = Run()
    run.orders.load_state_dict(None)
    run.buckets.put_back(step=5)
    assert [reason.kind for reason in run.reasons] == ["ddp-bucket-order"]
    assert "of a version that did not save" in run.reasons[0].detail


def test_the_order_of_the_arrivals_is_saved_and_put_back(group):
    former, later = Run(), Run()
    former.step()
    saved = former.orders.state_dict()
    assert saved == [{"order": ["model.1.bias", "model.1.weight", "model.0.bias", "model.0.weight"]}]
    later.orders.load_state_dict(saved)
    later.buckets.put_back(step=1)
    assert later.reasons == []
    assert ddp_reducer.has_rebuilt(later.model)
    later.step()
    assert later.orders.state_dict() == saved
    assert [parameter.grad is not None for parameter in later.model.parameters()] == [True] * 4


def test_a_torch_that_lacks_a_name_makes_the_resume_suspect(group, monkeypatch):
    former, later = Run(), Run()
    former.step()
    later.orders.load_state_dict(former.orders.state_dict())
    monkeypatch.setattr(ddp_reducer, "_NEEDED", ("_a_name_of_the_future",))
    later.buckets.put_back(step=1)
    assert "has no _a_name_of_the_future" in later.reasons[0].detail


def test_a_replica_that_was_not_trained_at_the_checkpoint_has_nothing_to_put_back(group):
    run = Run()
    run.orders.load_state_dict([])
    run.buckets.put_back(step=5)
    assert run.reasons == []
