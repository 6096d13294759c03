"""A loop that waits for its loader most of the time: where a signal to the process group finds it."""

from __future__ import annotations

import argparse
import time

import torch
from torch.utils.data import DataLoader, Dataset

import trainerd


class Slow(Dataset):
    """Samples that take their time, with noise."""

    def __init__(self, *, is_stuck: bool) -> None:
        self.is_stuck = is_stuck

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(3600 if self.is_stuck and index > 60 else 0.01)
        return torch.full((4,), float(index)) + torch.rand(4)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--context", default="fork")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--persistent", action="store_true")
    parser.add_argument("--fail-at", type=int, default=-1)
    parser.add_argument("--stuck", action="store_true", help="samples beyond the sixtieth never come")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    loader = DataLoader(
        Slow(is_stuck=args.stuck),
        batch_size=8,
        shuffle=not args.stuck,
        num_workers=args.workers,
        multiprocessing_context=args.context if args.workers else None,
        persistent_workers=args.persistent,
    )
    with trainerd.session(every={"seconds": None, "epochs": None}) as session:
        session.track(model=model)
        for _ in session.epochs(100):
            for batch in session.batches(loader):
                loss = model(batch).mean()
                loss.backward()
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.sub_(parameter.grad, alpha=1e-6)
                model.zero_grad()
                session.log(loss=loss)
                if session.step == args.fail_at:
                    raise ValueError("a bug of the script's own")


if __name__ == "__main__":
    main()
