"""Train a tiny network whose parameters are sharded over the ranks with ``fully_shard``, on the CPU with
gloo.

With --plain, a single rank trains the same network unsharded.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import os
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import trainerd

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--step-ms", type=float, default=0.0)
parser.add_argument("--plain", action="store_true")
parser.add_argument(
    "--only-resume", action="store_true", help="say what the state is after the resume, and leave"
)
args = parser.parse_args()


def digest(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Return a digest of the whole state, wherever its parts are."""
    hasher = hashlib.sha256()
    states = [optimizer.state[parameter] for parameter in model.parameters()]
    tensors = [*model.state_dict().values(), *(value for state in states for value in state.values())]
    for tensor in tensors:
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        hasher.update(whole.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()[:16]


faulthandler.dump_traceback_later(45)
torch.set_num_threads(1)
with trainerd.session(every={"steps": 4, "epochs": 1}) as session:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(8, 13), nn.Tanh(), nn.Linear(13, 1))  # 13 and 1 do not divide by 2
    if not args.plain:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        dist.init_process_group(
            "gloo",
            **({} if session.world_size > 1 else {"store": dist.HashStore(), "rank": 0, "world_size": 1}),
        )
        mesh = dist.device_mesh.init_device_mesh("cpu", (session.world_size,))
        fully_shard(model[0], mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, foreach=False)
    session.track(model=model, optimizer=optimizer)
    points = torch.randn(96, 8, generator=torch.Generator().manual_seed(5))
    loader = DataLoader(TensorDataset(points), 4, shuffle=True)
    session.resume()
    if session.step:
        print(f"resumed {session.step} {digest(model, optimizer)}", flush=True)
    if args.only_resume:
        raise SystemExit(0)
    for _ in session.epochs(args.epochs):
        for (batch,) in session.batches(loader):
            began = time.monotonic()
            loss = functional.mse_loss(model(batch), batch.sum(dim=1, keepdim=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.log(loss=loss)
            print(f"state {session.step + 1} {digest(model, optimizer)}", flush=True)
            time.sleep(max(0.0, args.step_ms / 1000 - (time.monotonic() - began)))
