"""The job of `bench.first_start`: a small model, whose first step is noted with its moment."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainerd

STEPS_AN_EPOCH = 100_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--lr", type=float, required=True)
    args = parser.parse_args()
    torch.manual_seed(1)
    model = nn.Linear(64, 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    loader = DataLoader(TensorDataset(torch.randn(STEPS_AN_EPOCH, 64)), 1, shuffle=True)
    with trainerd.session(args.folder / "plain") as session:
        session.track(model=model, optimizer=optimizer)
        for _ in session.epochs(1):
            for (batch,) in session.batches(loader):
                optimizer.zero_grad()
                loss = model(batch).square().mean()
                loss.backward()
                optimizer.step()
                noted = args.folder / f"{args.lr}.first-step"
                if not noted.exists():
                    noted.write_text(f"{time.time()} {loss.item().hex()}")
                if (args.folder / "end").exists():
                    return
                time.sleep(0.05)


if __name__ == "__main__":
    main()
