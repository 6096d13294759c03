"""Train a tiny network on several ranks in one of several shapes, and be struck by a signal at a step.

Three and more ranks show what two do not: a sum of two numbers has one order only.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import signal

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import trainerd

parser = argparse.ArgumentParser()
parser.add_argument("shape")
parser.add_argument("--strike", nargs=3, type=int, default=[0, 0, 0], help="rank, step and signal")
parser.add_argument("--steps", type=int, default=6, help="steps of an epoch")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--every", type=int, default=2, help="steps between two checkpoints")
args = parser.parse_args()
rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
SHAPES = {
    "ddp": {},
    "buckets": {"bucket_cap_mb": 0.008},
    "static": {"static_graph": True, "bucket_cap_mb": 0.008},
    "view": {"gradient_as_bucket_view": True, "bucket_cap_mb": 0.008},
    "unused": {"find_unused_parameters": True},
    "no-sync": {},
    "fp16-hook": {},
    "raw": {},
    "late": {},
    "half": {"bucket_cap_mb": 0.008},
    "powersgd": {},
    "join": {},
    "zero": {},
    "zero-inner": {},
    "local-sgd": {},
}


def network() -> nn.Module:
    layers = [nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)]
    if args.shape == "half":
        layers[2].to(torch.float64)
        layers[2].register_forward_pre_hook(lambda _, given: (given[0].double(),))
        layers[2].register_forward_hook(lambda _, given, made: made.float())
    return nn.Sequential(*layers)


def wrapped(plain: nn.Module) -> nn.Module:
    if args.shape == "apart":
        return plain
    if args.shape.startswith("fsdp2"):
        return sharded(plain)
    model = nn.parallel.DistributedDataParallel(plain, **SHAPES[args.shape])
    if args.shape == "fp16-hook":
        model._register_builtin_comm_hook(dist.BuiltinCommHookType.FP16_COMPRESS)
    if args.shape == "powersgd":
        from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=3)
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    if args.shape == "local-sgd":
        from torch.distributed.algorithms.ddp_comm_hooks import post_localSGD_hook

        alone, _ = dist.new_subgroups(group_size=1)
        state = post_localSGD_hook.PostLocalSGDState(None, alone, start_localSGD_iter=3)
        model.register_comm_hook(state, post_localSGD_hook.post_localSGD_hook)
    return model


def sharded(plain: nn.Module) -> nn.Module:
    """Return the model under FSDP2, with tensor parallelism inside if there are four ranks."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import parallel

    if args.shape == "fsdp2":
        return fully_shard(plain)
    mesh = init_device_mesh("cpu", (world_size // 2, 2), mesh_dim_names=("dp", "tp"))
    plan = {"0": parallel.ColwiseParallel(), "2": parallel.RowwiseParallel()}
    parallel.parallelize_module(plain, mesh["tp"], plan)
    return fully_shard(plain, mesh=mesh["dp"])


def optimizer_for(parameters) -> torch.optim.Optimizer:
    if args.shape.startswith("zero"):
        from torch.distributed.optim import ZeroRedundancyOptimizer

        return ZeroRedundancyOptimizer(parameters, torch.optim.AdamW, lr=0.02)
    optimizer = torch.optim.SGD(parameters, 0.1, momentum=0.9)
    if args.shape == "local-sgd":
        from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
        from torch.distributed.optim import PostLocalSGDOptimizer

        return PostLocalSGDOptimizer(optimizer, PeriodicModelAverager(period=3, warmup_steps=3))
    return optimizer


faulthandler.dump_traceback_later(60)  # a test that finds a hang shows where
torch.set_num_threads(1)
if args.shape != "apart":
    dist.init_process_group("gloo")
with trainerd.session(seed=0, every={"steps": args.every, "seconds": None, "epochs": None}) as session:
    torch.manual_seed(3)
    plain = network()
    model = plain if args.shape == "late" else wrapped(plain)
    optimizer = optimizer_for(plain.parameters())
    session.track(model=plain if args.shape in {"raw", "late"} else model)
    session.track(optimizer=optimizer.optim if args.shape == "zero-inner" else optimizer)
    if args.shape.startswith("zero"):
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
        session.track(schedule=schedule)
    session.resume()
    if args.shape == "late":
        model = wrapped(plain)
    samples = torch.Generator().manual_seed(1)
    size = 4 * args.steps * world_size
    points = TensorDataset(
        torch.randn(size, 16, generator=samples), torch.randint(0, 5, (size,), generator=samples)
    )
    uneven = contextlib.ExitStack()
    if args.shape == "join":
        uneven.enter_context(model.join())
    for _ in session.epochs(args.epochs):
        for inputs, targets in session.batches(DataLoader(points, 4, shuffle=True)):
            if session.attempt == 1 and [rank, session.step] == args.strike[:2] and args.strike[2]:
                print("strikes", flush=True)
                os.kill(os.getpid(), signal.Signals(args.strike[2]))
            optimizer.zero_grad()
            if args.shape == "no-sync":
                with model.no_sync():
                    functional.cross_entropy(model(inputs[:2]), targets[:2]).backward()
            loss = functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            if args.shape.startswith("zero"):
                schedule.step()
            session.log(loss=loss.detach())
    if args.shape.startswith("fsdp2"):
        whole = {name: tensor.full_tensor() for name, tensor in plain.state_dict().items()}
        if rank == 0:
            torch.save(whole, session.run_dir / "whole.pt")
if dist.is_initialized():
    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()
