"""Train a tiny network for a few seconds, with everything in it that is hard to resume exactly.

The data is augmented with the random numbers of Python, NumPy and torch, the network drops units at random,
and the last batch of an epoch is a short one. Two runs of it are equal to the last bit, however often one was
killed.
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import trainerd

FEATURES, CLASSES, BATCH_SIZE = 16, 4, 8
LAST_BATCH_SIZE = 5


class NoisyPoints(Dataset):
    """Points around a few centres, made from a seed; three kinds of random noise are added at each
    reading."""

    def __init__(self, size: int, seed: int, *, noise: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(0))
        self.targets = torch.randint(CLASSES, (size,), generator=generator)
        self.points = centres[self.targets] + 0.8 * torch.randn(size, FEATURES, generator=generator)
        self.noise = noise

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        point = self.points[index]
        if self.noise:
            shift = random.gauss(0, self.noise)
            wobble = torch.from_numpy(np.random.normal(0, self.noise, FEATURES).astype(np.float32))  # noqa: NPY002 -- the global generator is the point
            point = point * (1 + shift) + wobble + self.noise * torch.randn(FEATURES)
        return point, self.targets[index]


class Momentum:
    """Gradient descent with momentum, tracked like any object with a state_dict.

    Ten lines instead of torch.optim, which at its first use imports torch._dynamo for as long as torch itself
    takes: much, for a job of two seconds. `--optimizer adamw` uses torch's.
    """

    def __init__(self, model: nn.Module, lr: float) -> None:
        self.parameters = dict(model.named_parameters())
        self.velocities = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        self.lr = lr

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for name, parameter in self.parameters.items():
            self.velocities[name].mul_(0.9).add_(parameter.grad)
            parameter.sub_(self.velocities[name], alpha=self.lr)

    def state_dict(self) -> dict[str, object]:
        return {"lr": self.lr, "velocities": self.velocities}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.lr, self.velocities = state["lr"], state["velocities"]


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")  # the other name for it imports torch._inductor: 3 s
    torch.manual_seed(args.seed)
    train_size = (args.batches - 1) * BATCH_SIZE + LAST_BATCH_SIZE
    train_set = NoisyPoints(train_size, args.seed + 1, noise=0.1)
    valid_set = NoisyPoints(64, args.seed + 2, noise=0.0)
    train_loader = DataLoader(train_set, BATCH_SIZE, shuffle=True, num_workers=args.workers)
    valid_loader = DataLoader(valid_set, BATCH_SIZE)

    model = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, CLASSES))
    tracked = {"model": model, "optimizer": Momentum(model, lr=0.02)}
    if args.optimizer == "adamw":
        tracked["optimizer"] = torch.optim.AdamW(model.parameters(), lr=0.01)
        tracked["scheduler"] = torch.optim.lr_scheduler.ReduceLROnPlateau(
            tracked["optimizer"], "max", patience=0
        )
    optimizer, scheduler = tracked["optimizer"], tracked.get("scheduler")

    with trainerd.session(seed=args.seed) as session:
        session.track(**tracked)
        for epoch in session.epochs(args.epochs):
            model.train()
            for points, targets in session.batches(train_loader):
                began = time.monotonic()
                loss = functional.cross_entropy(model(points), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                session.log(loss=loss)
                time.sleep(max(0.0, args.step_ms / 1000 - (time.monotonic() - began)))
            accuracy = evaluate(session, model, valid_loader)
            if scheduler is not None:
                scheduler.step(accuracy)
            session.report(accuracy=accuracy)
            print(f"epoch {epoch + 1} of {args.epochs}: accuracy {accuracy:.4f}", flush=True)


@torch.no_grad()
def evaluate(session: trainerd.Session, model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    correct = total = 0
    for points, targets in session.batches(loader, train=False):
        correct += int((model(points).argmax(dim=1) == targets).sum())
        total += len(targets)
    return correct / total


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a tiny network for a few seconds.")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batches", type=int, default=10, help="in an epoch; the last one is short")
    parser.add_argument("--workers", type=int, default=0, help="data-loading processes")
    parser.add_argument(
        "--step-ms", type=float, default=0.0, help="least duration of a step, in milliseconds"
    )
    parser.add_argument("--optimizer", choices=("momentum", "adamw"), default="momentum")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
