"""The job of `bench.standby`: an MLP with Adam, whose state has the size that is asked for.

It notes the moments of its start and of each step, and at each step the loss, which depends on all state
before it. The first step of an attempt, and the steps named in `--digest-steps`, also have a digest of the
whole state.
"""

from __future__ import annotations

import time

STARTED_S = time.time()
# ruff: noqa: E402 - the moment before the imports is one of those that are measured

import argparse
import json
import os
from pathlib import Path

import torch
import xxhash
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainerd

IMPORTED_S = time.time()

LAYERS = 4
BYTES_A_PARAMETER = 12  # itself and two moments of Adam
BATCHES_AN_EPOCH = 100_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--state-mb", type=float, required=True)
    parser.add_argument("--step-ms", type=float, required=True)
    parser.add_argument("--until", type=int, default=BATCHES_AN_EPOCH)
    parser.add_argument("--digest-steps", type=int, nargs="*", default=())
    args = parser.parse_args()
    torch.manual_seed(1)
    with trainerd.session(args.folder / "run") as session:
        model = network(args.state_mb)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        session.track(model=model, optimizer=optimizer)
        data = TensorDataset(torch.arange(BATCHES_AN_EPOCH, dtype=torch.float32).sin().unsqueeze(1))
        loader = DataLoader(data, 1, shuffle=True)
        built_s, restored_s, is_first = time.time(), 0.0, True
        ledger = (args.folder / "ledger.jsonl").open("a", buffering=1)
        for _ in session.epochs(1):
            for (point,) in session.batches(loader):
                began_s = time.time()
                if is_first:
                    restored_s = began_s
                optimizer.zero_grad()
                loss = model(point.expand(1, model[0].in_features)).square().mean()
                loss.backward()
                optimizer.step()
                row = {"step": session.step + 1, "loss": loss.item().hex(), "pid": os.getpid()}
                row |= {"done_s": time.time(), "copy_s": session._run.memory.budget.cost_s}  # noqa: SLF001
                if is_first:
                    row |= {"started_s": STARTED_S, "imported_s": IMPORTED_S, "built_s": built_s}
                    row["restored_s"] = restored_s
                if is_first or row["step"] in args.digest_steps:
                    row["digest"] = digest(model, optimizer)
                is_first = False
                ledger.write(json.dumps(row) + "\n")
                if row["step"] >= args.until:
                    return
                time.sleep(args.step_ms / 1000)


def network(state_mb: float) -> nn.Sequential:
    width = round((state_mb * 1e6 / BYTES_A_PARAMETER / LAYERS) ** 0.5)
    layers = [module for _ in range(LAYERS) for module in (nn.Linear(width, width), nn.Dropout(0.1))]
    return nn.Sequential(*layers)


def digest(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    found = xxhash.xxh3_128()
    for tensor in [*model.state_dict().values(), torch.get_rng_state()]:
        found.update(tensor.numpy())
    for state in optimizer.state_dict()["state"].values():
        for name in sorted(state):
            found.update(state[name].numpy())
    return found.hexdigest()


if __name__ == "__main__":
    main()
