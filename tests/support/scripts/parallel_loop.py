"""Train a tiny network of which one replica takes several ranks, and say which samples each rank has used."""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import parallel
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import trainerd

parser = argparse.ArgumentParser()
parser.add_argument("shape", choices=["fsdp-tp", "ddp-part", "tp", "by-hand"])
parser.add_argument("--sampler", choices=["none", "world", "replicas"], default="none")
parser.add_argument(
    "--say", choices=["nothing", "mesh", "all-of-mesh", "numbers", "world"], default="nothing"
)
parser.add_argument("--strike", nargs=3, type=int, default=[0, 0, 0], help="rank, step and signal")
parser.add_argument("--tp", type=int, default=2, help="ranks of one replica")
args = parser.parse_args()
rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
SAMPLES, BATCH = 44, 3

faulthandler.dump_traceback_later(60)  # a test that finds a hang shows where
torch.set_num_threads(1)
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (world_size // args.tp, args.tp), mesh_dim_names=("dp", "tp"))
with trainerd.session(seed=0, every={"steps": 2, "seconds": None, "epochs": None}) as session:
    torch.manual_seed(3)
    model: nn.Module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    if args.shape in {"fsdp-tp", "tp"}:
        plan = {"0": parallel.ColwiseParallel(), "2": parallel.RowwiseParallel()}
        parallel.parallelize_module(model, mesh["tp"], plan)
    if args.shape == "fsdp-tp":
        fully_shard(model, mesh=mesh["dp"])
    if args.shape == "ddp-part":
        model = nn.parallel.DistributedDataParallel(model, process_group=mesh.get_group("dp"))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, foreach=False)
    session.track(model=model, optimizer=optimizer)
    samples = torch.Generator().manual_seed(1)
    points = TensorDataset(
        torch.randn(SAMPLES, 16, generator=samples),
        torch.randint(0, 5, (SAMPLES,), generator=samples),
        torch.arange(SAMPLES),
    )
    if args.sampler == "none":
        loader = DataLoader(points, BATCH, shuffle=True)
    else:
        size, number = (world_size, rank) if args.sampler == "world" else (mesh["dp"].size(), rank // args.tp)
        loader = DataLoader(points, BATCH, sampler=DistributedSampler(points, size, number))
    said = {
        "nothing": {},
        "mesh": {"mesh": mesh["dp"]},
        "all-of-mesh": {"mesh": mesh},
        "numbers": {"dp_rank": rank // args.tp, "dp_size": world_size // args.tp},
        "world": {"dp_rank": rank, "dp_size": world_size},
    }[args.say]
    for epoch in session.epochs(2):
        for inputs, targets, indices in session.batches(loader, **said):
            if session.attempt == 1 and [rank, session.step] == args.strike[:2] and args.strike[2]:
                os.kill(os.getpid(), signal.Signals(args.strike[2]))
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            session.log(loss=loss.detach())
            print(f"used {session.attempt} {rank} {epoch} {session.step} {indices.tolist()}", flush=True)
dist.destroy_process_group()
