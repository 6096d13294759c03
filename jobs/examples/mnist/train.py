"""Train a ResNet-18 on handwritten digits: plain PyTorch, and the few lines marked with `session`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from digits import SOURCES, choose_source, load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision_compat import import_torchvision

import trainerd


def main() -> None:
    args = parse_arguments()
    # Equal bits on every run need a fixed number of threads: sums depend on how they are split.
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)

    with trainerd.session(seed=args.seed) as session:
        source = choose_source(args.data, args.source, marker=session.run_dir / "data-source")
        train_set, valid_set = load_digits(args.data, source, args.train_size, args.valid_size)
        print(
            f"data: {len(train_set)} + {len(valid_set)} digits from {source}; model: {args.model}", flush=True
        )
        train_loader = DataLoader(train_set, args.batch_size, shuffle=True, num_workers=args.workers)
        valid_loader = DataLoader(valid_set, 256, num_workers=args.workers)

        model = make_model(args.model)
        optimizer = torch.optim.RMSprop(model.parameters(), lr=args.lr, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
        session.track(model=model, optimizer=optimizer, scheduler=scheduler)

        for epoch in session.epochs(args.epochs):
            model.train()
            for images, targets in session.batches(train_loader):
                loss = functional.cross_entropy(model(images), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                session.log(loss=loss)
            scheduler.step()
            accuracy = evaluate(session, model, valid_loader)
            session.report(accuracy=accuracy)
            print(f"epoch {epoch + 1} of {args.epochs}: accuracy {accuracy:.4f}", flush=True)


@torch.no_grad()
def evaluate(session: trainerd.Session, model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    correct = total = 0
    for images, targets in session.batches(loader, train=False):
        correct += int((model(images).argmax(dim=1) == targets).sum())
        total += len(targets)
    return correct / total


def make_model(name: str) -> nn.Module:
    if name == "small":
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(16 * 7 * 7, 10),
        )
    resnet = import_torchvision().models.resnet18(num_classes=10)
    # Digits are small and grey: one channel in, and no halving before the first block.
    resnet.conv1 = nn.Conv2d(1, 64, kernel_size=3, stride=1, padding=1, bias=False)
    resnet.maxpool = nn.Identity()
    return resnet


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--model", choices=("resnet18", "small"), default="resnet18")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0, help="data-loading processes")
    parser.add_argument("--train-size", type=int, help="use only so many training digits")
    parser.add_argument("--valid-size", type=int, help="use only so many validation digits")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch's kernels; results depend on it")
    parser.add_argument(
        "--data", type=Path, default=Path(__file__).parent / "data", help="where downloads go"
    )
    parser.add_argument("--source", choices=("auto", *SOURCES), default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
