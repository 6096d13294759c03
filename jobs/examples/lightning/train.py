"""Train a small network with Lightning; `TrainerdCallback` is the only line that is not Lightning's."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mnist"))  # its torchvision

from torchvision_compat import import_torchvision

if find_spec("torchvision"):
    import_torchvision()  # Lightning imports it, whether or not it fits the torch beside it

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from trainerd.integrations.lightning import TrainerdCallback


class Circles(Dataset):
    """Points, and whether they lie in a circle; each reading adds noise."""

    def __init__(self, size: int, seed: int) -> None:
        self.points = torch.rand(size, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        point = self.points[index]
        return point + 0.01 * torch.randn(2), (point.norm() < 0.8).float()


class Classifier(LightningModule):
    """Says whether a point lies in the circle."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(32, 1)
        )

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        points, targets = batch
        loss = torch.nn.functional.binary_cross_entropy_with_logits(self.net(points).squeeze(1), targets)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        points, targets = batch
        hits = (self.net(points).squeeze(1) > 0) == (targets > 0.5)
        self.log("accuracy", hits.float().mean())

    def on_validation_epoch_end(self) -> None:
        print(f"epoch {self.current_epoch + 1}: {self.trainer.callback_metrics['accuracy']:.4f}", flush=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    trainerd = TrainerdCallback(run=args.run, seed=0)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=args.epochs,
        accumulate_grad_batches=args.accumulate,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=[trainerd, ModelCheckpoint("best-of-" + args.run, monitor="accuracy", mode="max")],
    )
    train_loader = DataLoader(Circles(320, 1), 16, shuffle=True, num_workers=args.workers)
    trainer.fit(Classifier(), train_loader, DataLoader(Circles(128, 2), 64))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--accumulate", type=int, default=2, help="batches a step of the optimizer")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--run", default="lightning", help="name of the run: the same for 2 and for 4 epochs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
