"""The job of `bench.compiled_code`: a small compiled model, which notes how long its first step took."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader, TensorDataset

import trainerd

STEPS = 8


def main() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 64), nn.Softmax(-1)
    )
    compiled = torch.compile(model)
    optimizer = torch.optim.Adam(model.parameters())
    loader = DataLoader(TensorDataset(torch.randn(STEPS * 16, 64)), 16, shuffle=True)
    is_first = True
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer)
        for _ in session.epochs(1):
            for (batch,) in session.batches(loader):
                began_s = time.monotonic()
                optimizer.zero_grad()
                compiled(batch).square().sum().backward()
                optimizer.step()
                if is_first:
                    note = {
                        "pid": os.getpid(),
                        "seconds": time.monotonic() - began_s,
                        "misses": counters["inductor"]["fxgraph_cache_miss"],
                    }
                    with Path("first-steps").open("a") as file:
                        print(json.dumps(note), file=file, flush=True)
                    is_first = False
                while session.step >= 2 and Path("wait").exists():
                    time.sleep(0.01)


if __name__ == "__main__":
    main()
