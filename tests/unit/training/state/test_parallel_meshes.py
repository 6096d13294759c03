"""What tracked models show of who gets which batches, for every rank of a world that is not there."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from trainerd.training.state.parallel_meshes import (
    MeshNamesError,
    ParallelRanks,
    data_ranks_by_name,
    parallel_ranks,
)

pytestmark = pytest.mark.torch


@pytest.fixture
def world():
    """Return a function that makes this process a rank of a world of ranks that do not exist."""
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")

    def enter(rank, size=8):
        if dist.is_initialized():
            dist.destroy_process_group()
        dist.init_process_group("fake", rank=rank, world_size=size, store=fake.FakeStore())
        return dist.device_mesh

    yield enter
    if dist.is_initialized():
        dist.destroy_process_group()


def mesh_of(shape, *names):
    return dist.device_mesh.init_device_mesh("cpu", shape, mesh_dim_names=names or None)


def network():
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.LayerNorm(8))


def cut(model, mesh):
    from torch.distributed.tensor import parallel

    plan = {"0": parallel.ColwiseParallel(), "2": parallel.RowwiseParallel()}
    return parallel.parallelize_module(model, mesh, plan)


def sharded(model, mesh):
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model, mesh=mesh)


def plain():
    return network()


def hsdp_tp():
    mesh = mesh_of((2, 2, 2), "dp_replicate", "dp_shard", "tp")
    return sharded(cut(network(), mesh["tp"]), mesh["dp_replicate", "dp_shard"])


def fsdp_tp():
    mesh = mesh_of((4, 2), "x", "y")
    return sharded(cut(network(), mesh["y"]), mesh["x"])


def tp_outside():
    mesh = mesh_of((2, 4), "tp", "dp")
    return sharded(cut(network(), mesh["tp"]), mesh["dp"])


def pipeline():
    return sharded(network(), mesh_of((2, 4), "pp", "dp")["dp"])


def pipeline_of_tensors():
    mesh = mesh_of((2, 2, 2), "pp", "dp", "tp")
    return sharded(cut(network(), mesh["tp"]), mesh["dp"])


def context():
    mesh = mesh_of((2, 2, 2), "dp", "cp", "tp")
    return sharded(cut(network(), mesh["tp"]), mesh["dp", "cp"]._flatten("dp_cp"))


def context_level():
    mesh = mesh_of((4, 2), "dp", "cp")
    return sharded(network(), mesh)


def tensors_alone():
    return cut(network(), mesh_of((8,)))


def tensors_within():
    return cut(network(), mesh_of((4, 2), "dp", "tp")["tp"])


def placed_by_hand():
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    model, mesh = nn.Linear(8, 8, bias=False), mesh_of((4, 2))
    model.weight = nn.Parameter(distribute_tensor(model.weight, mesh, [Replicate(), Shard(0)]))
    return model


def replicated():
    from torch.distributed.tensor import distribute_module

    return distribute_module(network(), mesh_of((8,), "dp"))


def fully_sharded():
    return sharded(network(), mesh_of((8,), "dp"))


def hybrid():
    return sharded(network(), mesh_of((2, 4), "replicas", "parts"))


def island():
    return sharded(network(), mesh_of((2, 3), "islands", "dp")["dp"])


def tensors_of_unknown():
    return cut(network(), mesh_of((3, 2), "a", "b")["b"])


def numbers(*replicas):
    """Return the replica of each rank, and how many there are."""
    return {rank: (number, len(replicas)) for number, ranks in enumerate(replicas) for rank in ranks}


@pytest.mark.parametrize(
    ("make", "replicas"),
    [
        (hsdp_tp, numbers((0, 1), (2, 3), (4, 5), (6, 7))),
        (fsdp_tp, numbers((0, 1), (2, 3), (4, 5), (6, 7))),
        (tp_outside, numbers((0, 4), (1, 5), (2, 6), (3, 7))),
        (pipeline, numbers((0, 4), (1, 5), (2, 6), (3, 7))),
        (pipeline_of_tensors, numbers((0, 1, 4, 5), (2, 3, 6, 7))),
        (context, numbers((0, 1, 2, 3), (4, 5, 6, 7))),
        (context_level, numbers((0, 1), (2, 3), (4, 5), (6, 7))),
        (tensors_alone, numbers(tuple(range(8)))),
        (tensors_within, numbers((0, 1), (2, 3), (4, 5), (6, 7))),
        (placed_by_hand, numbers((0, 1), (2, 3), (4, 5), (6, 7))),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_the_ranks_of_a_replica_are_found(world, make, replicas):
    for rank in (1, 6):
        world(rank)
        shown = parallel_ranks({"model": make()}, [], rank=rank, world_size=8)
        assert shown is not None
        assert shown.problem is None
        assert (shown.data.index(rank), len(shown.data)) == replicas[rank]


@pytest.mark.parametrize("make", [plain, replicated, fully_sharded, hybrid], ids=lambda make: make.__name__)
def test_ranks_that_are_replicas_each_show_nothing(world, make):
    world(5)
    assert parallel_ranks({"model": make()}, [], rank=5, world_size=8) is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (island, "gradients of model are averaged over ranks [3, 4, 5] only"),
        (tensors_of_unknown, "model.0.weight is spread over ranks [4, 5]"),
    ],
    ids=["island", "tensors"],
)
def test_what_the_models_do_not_show_is_not_guessed(world, make, words):
    world(5, 6)  # torch keeps meshes from one world to the next, and takes equal ones for the same
    shown = parallel_ranks({"model": make()}, [], rank=5, world_size=6)
    assert shown is not None
    assert words in str(shown.problem)


def test_a_flattened_mesh_with_context_parallelism_without_its_parts_is_a_problem(world):
    world(5)
    model = sharded(network(), mesh_of((8,), "dp_shard_cp"))
    shown = parallel_ranks({"model": model}, [], rank=5, world_size=8)
    assert shown is not None
    assert shown.problem == "model is sharded over the mesh (dp_shard_cp=8)"


def test_a_replica_over_some_ranks_shows_the_data_and_tensor_parallelism_the_rest(world):
    world(2, 4)
    mesh = mesh_of((2, 2), "a", "b")

    class Replica:
        process_group = mesh.get_group("a")

    model = cut(network(), mesh["b"])
    shown = parallel_ranks({"model": model}, [Replica()], rank=2, world_size=4)
    assert shown == ParallelRanks((0, 2), (2, 3), "model.0.weight")
    alone = parallel_ranks({"model": network()}, [Replica()], rank=2, world_size=4)
    assert alone is not None
    assert alone.problem == "the gradients of its DistributedDataParallel are averaged over ranks [0, 2] only"


def test_experts_on_other_ranks_do_not_change_who_gets_which_batches(world):
    from torch.distributed.tensor import Shard, distribute_tensor

    world(3, 8)
    dense = mesh_of((8,), "dp")
    model = network()
    experts = mesh_of((4, 2), "dp_shard_mod_ep", "ep")
    model.experts = nn.Linear(8, 8, bias=False)
    model.experts.weight = nn.Parameter(distribute_tensor(model.experts.weight, experts["ep"], [Shard(0)]))
    sharded(model.experts, experts["dp_shard_mod_ep"])
    sharded(model, dense)
    assert parallel_ranks({"model": model}, [], rank=3, world_size=8) is None


def test_a_mesh_names_its_data_parallel_dimensions(world):
    world(6)
    assert data_ranks_by_name(mesh_of((2, 2, 2), "dp_replicate", "dp_shard", "tp"), 6) == (0, 2, 4, 6)
    assert data_ranks_by_name(mesh_of((8,)), 6) == tuple(range(8))
    assert data_ranks_by_name(mesh_of((8,), "tensor_parallel"), 6) == (6,)
    for unclear in (mesh_of((4, 2)), mesh_of((4, 2), "dp", "y"), mesh_of((8,), "dp_cp")):
        with pytest.raises(MeshNamesError):
            data_ranks_by_name(unclear, 6)


def test_what_is_tracked_beside_models_shows_nothing(world):
    world(1)
    model = network()
    objects = {"optimizer": torch.optim.SGD(model.parameters(), 0.1)}
    assert parallel_ranks(objects, [], rank=1, world_size=8) is None
