"""Train a small network with Hugging Face Accelerate: an ordinary loop, and a session for it."""

from __future__ import annotations

import argparse

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from trainerd.integrations.accelerate import session as accelerated_session


class Circles(Dataset):
    """Points, and whether they lie in a circle; each reading adds noise."""

    def __init__(self, size: int, seed: int) -> None:
        self.points = torch.rand(size, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        point = self.points[index]
        return point + 0.01 * torch.randn(2), (point.norm() < 0.8).float()


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=args.accumulate)
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(32, 1)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 20, 0.5)
    train_loader = DataLoader(Circles(320, 1), 16, shuffle=True, num_workers=args.workers)
    valid_loader = DataLoader(Circles(128, 2), 64)
    model, optimizer, scheduler, train_loader, valid_loader = accelerator.prepare(
        model, optimizer, scheduler, train_loader, valid_loader
    )
    loss_of = torch.nn.BCEWithLogitsLoss()

    with accelerated_session(accelerator, run=args.run, seed=0) as session:
        session.track(model=model, optimizer=optimizer, scheduler=scheduler)
        for epoch in session.epochs(args.epochs):
            model.train()
            for points, targets in session.batches(train_loader):
                with accelerator.accumulate(model):
                    loss = loss_of(model(points).squeeze(1), targets)
                    accelerator.backward(loss)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
                session.log(loss=loss)
            model.eval()
            right = []
            for points, targets in session.batches(valid_loader, train=False):
                with torch.no_grad():
                    hits = (model(points).squeeze(1) > 0) == (targets > 0.5)
                right.append(accelerator.gather_for_metrics(hits))
            accuracy = torch.cat(right).float().mean()
            session.report(accuracy=accuracy)
            if accelerator.is_main_process:
                print(f"epoch {epoch + 1} of {args.epochs}: accuracy {accuracy:.4f}", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--accumulate", type=int, default=2, help="batches a step")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument(
        "--run", default="accelerate", help="name of the run: the same for 2 and for 4 epochs"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
