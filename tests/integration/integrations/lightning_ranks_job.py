"""A training with Lightning on two ranks that notices everything and is struck where it is told."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import torch

from tests.support.lightning_parts import Epochs, Model, pl
from tests.support.strikes import strike
from trainerd.integrations.lightning import TrainerdCallback

EPOCHS = 3


class Noisy(torch.utils.data.Dataset):
    def __init__(self, length: int) -> None:
        self.x = torch.randn(length, 4, generator=torch.Generator().manual_seed(length))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.x[index] + 0.1 * torch.rand(4) + 0.01 * random.random()


class Module(Model):
    def training_step(self, batch, batch_idx):
        loss = self.logged_loss(batch, sync_dist=True)
        strike(f"{self.current_epoch}.{batch_idx}")
        return loss

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            strike(f"validation{self.current_epoch}")
        self.log_validation(batch, sync_dist=True)


def main() -> None:
    out = Path(os.environ["JOB_OUT"])
    torch.set_num_threads(1)
    pl.seed_everything(3, workers=True)
    best = pl.callbacks.ModelCheckpoint(monitor="valid", save_top_k=2, save_last=True)
    seen = Epochs()
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        default_root_dir=out,
        logger=pl.loggers.CSVLogger(out),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[best, seen, TrainerdCallback(out / "run", every={"steps": 2, "epochs": 1})],
    )
    module = Module()
    trainer.fit(
        module,
        torch.utils.data.DataLoader(Noisy(46), batch_size=4, shuffle=True),
        torch.utils.data.DataLoader(Noisy(18), batch_size=4),
    )
    result = {
        "model": [each.tolist() for each in module.state_dict().values()],
        "optimizer": repr(trainer.optimizers[0].state_dict()),
        "scheduler": repr(trainer.lr_scheduler_configs[0].scheduler.state_dict()),
        "seen": seen.seen,
        "best": {Path(path).name: float(score) for path, score in best.best_k_models.items()},
        "files": sorted(each.relative_to(out).as_posix() for each in out.rglob("*.ckpt")),
        "csv": (out / "lightning_logs" / "version_0" / "metrics.csv").read_text(),
        "random": torch.get_rng_state().tolist()[:40],
    }
    if trainer.is_global_zero:
        (out / "final.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
