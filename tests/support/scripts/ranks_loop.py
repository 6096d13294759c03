"""Train a tiny network with several ranks; each rank notes which samples it has used, in which step.

With --ddp the ranks average their gradients, without they only share the run, and may be any number of steps
apart.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import trainerd
from tests.support.tiny_parts import Momentum

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--samples", type=int, default=61)
parser.add_argument("--batch-size", type=int, default=4)
parser.add_argument("--step-ms", type=float, default=0.0)
parser.add_argument("--slow-rank-ms", type=float, default=0.0, help="added to each step of rank 1")
parser.add_argument("--ddp", action="store_true")
parser.add_argument("--nccl", action="store_true", help="each rank trains on a CUDA device of its own")
parser.add_argument("--one-device", action="store_true", help="all ranks share a CUDA device, over gloo")
parser.add_argument("--workers", type=int, default=0)
parser.add_argument(
    "--evaluate-ms", type=float, default=0.0, help="of each evaluation batch, on rank 0 alone"
)
parser.add_argument(
    "--barrier", action="store_true", help="the other ranks wait for the evaluation in a collective"
)
parser.add_argument("--stall-at", type=int, default=-1, help="the step that takes a minute")
parser.add_argument("--misfit-rank", type=int, default=-1, help="which has another model than the others")
parser.add_argument("--hang-s", type=float, default=45, help="after which it shows its stacks")
args = parser.parse_args()


class Points(Dataset):
    """Noisy points that know their number."""

    def __init__(self, size: int) -> None:
        self.points = torch.randn(size, 8, generator=torch.Generator().manual_seed(5))

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.points[index] * (1 + random.gauss(0, 0.1)) + 0.1 * torch.randn(8), index


faulthandler.dump_traceback_later(args.hang_s)  # a test that finds a hang shows where
torch.set_num_threads(1)
with trainerd.session(every={"steps": 5, "epochs": 1}) as session:
    if args.ddp and session.world_size > 1:
        dist.init_process_group("nccl" if args.nccl else "gloo")
    width = 32 if session.rank == args.misfit_rank else 16
    model: nn.Module = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 1))
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if args.nccl else torch.device("cpu")
    if args.one_device:
        device = torch.device("cuda", 0)
    model = model.to(device)
    torch.manual_seed(1000 + session.rank)  # each rank drops out units of its own
    if args.ddp and session.world_size > 1:
        model = nn.parallel.DistributedDataParallel(model, device_ids=[device.index] if args.nccl else None)
    optimizer = Momentum(model.module if hasattr(model, "module") else model, lr=0.05)
    session.track(model=model, optimizer=optimizer)
    seen = session.value("seen", [])
    loader = DataLoader(Points(args.samples), args.batch_size, shuffle=True, num_workers=args.workers)
    for epoch in session.epochs(args.epochs):
        for on_host, indices in session.batches(loader):
            began = time.monotonic()
            points = on_host.to(device)
            loss = functional.mse_loss(model(points), points.sum(dim=1, keepdim=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.log(loss=loss)
            seen.value = [*seen.value, [epoch, session.step, indices.tolist()]]
            print(
                f"used {session.attempt} {session.rank} {epoch} {session.step} {indices.tolist()}", flush=True
            )
            if session.step == args.stall_at:
                print("stalls", flush=True)
                time.sleep(60)
            pause_ms = args.step_ms + args.slow_rank_ms * (session.rank == 1)
            time.sleep(max(0.0, pause_ms / 1000 - (time.monotonic() - began)))
        if session.rank == 0:
            for _ in session.batches(DataLoader(Points(12), 4), train=False):
                print("evaluates", flush=True)
                time.sleep(args.evaluate_ms / 1000)
            session.report(quality=sum(parameter.sum().item() for parameter in model.parameters()))
        if args.barrier:
            print("waits", flush=True)
            dist.barrier()
print(f"rank {session.rank} is done", flush=True)
