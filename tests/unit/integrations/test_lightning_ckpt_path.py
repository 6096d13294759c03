"""A new run that begins from a checkpoint of Lightning goes on where that was written, batch for batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from tests.support.lightning_packages import lightning_or_skip

pl = lightning_or_skip("lightning")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from trainerd.integrations.lightning import TrainerdCallback  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

BATCHES = 4
ITEMS = [torch.tensor([number / 32, 1.0]) for number in range(32)]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(ITEMS)


class Plain(pl.LightningModule):
    """Depends on the order of its batches, and on nothing random."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, 1)
        torch.nn.init.constant_(self.net.weight, 0.5)
        torch.nn.init.zeros_(self.net.bias)
        self.seen: list[float] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.seen.append(float(batch[0, 0]))
        return (self.net(batch) - 1).square().mean()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("valid", self.net(batch).mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.3, momentum=0.9)


def fit(out: Path, data: str, epochs: int, checkpoint: Path | None = None, **saving: Any) -> Plain:
    callbacks = [TrainerdCallback(out / f"run-{epochs}", strict=False)]
    callbacks += [ModelCheckpoint(out / "saved", save_top_k=-1, **saving)] if saving else []
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(saving),
        limit_train_batches=BATCHES,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        default_root_dir=out,
    )
    module = Plain()
    loader = DataLoader(Stream() if data == "stream" else ITEMS, batch_size=2)
    trainer.fit(module, loader, DataLoader(ITEMS[:4], batch_size=2), ckpt_path=checkpoint)
    return module


@pytest.mark.parametrize("data", ["map", "stream"])
@pytest.mark.parametrize(
    "saving",
    [
        {"every_n_train_steps": 1},
        {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    ],
    ids=["at each step", "at the end of an epoch", "after a validation"],
)
def test_it_goes_on_at_the_next_batch(tmp_path: Path, data: str, saving: dict[str, Any]) -> None:
    whole = fit(tmp_path / "whole", data, 3)
    fit(tmp_path / "first", data, 2, **saving)
    saved = sorted((tmp_path / "first" / "saved").iterdir())
    assert len(saved) == (2 * BATCHES if "every_n_train_steps" in saving else 2)
    for path in saved:
        step = int(path.stem.rpartition("=")[2])
        module = fit(tmp_path / path.stem, data, 3, path)
        assert module.seen == whole.seen[step:], path.name
        assert torch.equal(module.net.weight, whole.net.weight), path.name
