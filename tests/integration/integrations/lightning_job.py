"""A training with Lightning that notices everything and kills itself where it is told to.

Variables: OUT, PACKAGE, WORKERS, ACCUMULATE, EPOCHS and KILLS, such as ``step5:KILL,valid2:TERM``: one for
each attempt. Calls are counted in each attempt.
"""

from __future__ import annotations

import collections
import importlib
import json
import logging
import os
import random
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from tests.support.lightning_packages import import_torchvision_first

import_torchvision_first()
pl = importlib.import_module(os.environ["PACKAGE"])

from torchmetrics import MeanSquaredError  # noqa: E402

from trainerd.integrations.lightning import TrainerdCallback  # noqa: E402

warnings.filterwarnings("ignore")
logging.getLogger(os.environ["PACKAGE"]).setLevel(logging.ERROR)
torch.set_num_threads(1)
OUT = Path(os.environ["OUT"])
OUT.mkdir(exist_ok=True)
with (OUT / "attempts").open("a") as file:
    file.write("x")
KILLS = os.environ.get("KILLS", "").split(",")
NUMBER = (OUT / "attempts").stat().st_size - 1
KILL = next(iter(KILLS[NUMBER : NUMBER + 1]), "")
calls: collections.Counter[str] = collections.Counter()


def reach(place: str) -> None:
    """Count a call, and be killed there if it is asked for."""
    calls[place] += 1
    where, _, name = KILL.partition(":")
    if where == f"{place}{calls[place]}":
        os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
        time.sleep(0.05)


class Noisy(torch.utils.data.Dataset):
    def __init__(self, length: int) -> None:
        self.x = torch.randn(length, 4, generator=torch.Generator().manual_seed(length))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.x[index] + 0.1 * torch.rand(4) + 0.01 * random.random() + 0.01 * float(np.random.rand())


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"rate": 0.01, "names": ["a", "b"], "kind": Noisy})
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
        self.error = MeanSquaredError()

    def training_step(self, batch, batch_idx):
        found = self.net(batch)
        loss = (found - 1).square().mean()
        self.error(found, torch.ones_like(found))
        self.log("error", self.error, on_step=False, on_epoch=True)
        self.log("loss", loss, on_step=True, on_epoch=True)
        reach("step")
        return loss

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            reach("valid")
        self.log("valid", (self.net(batch) - 1).square().mean())

    def on_train_epoch_end(self):
        reach("epoch")

    def on_save_checkpoint(self, checkpoint):
        reach("save")

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "valid"}}


class Epochs(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, pl_module):
        values = {name: float(value).hex() for name, value in sorted(trainer.callback_metrics.items())}
        self.seen.append([trainer.current_epoch, values])

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def main() -> None:
    workers = int(os.environ["WORKERS"])
    pl.seed_everything(3, workers=True)  # a kill before the first checkpoint begins the run again
    best = pl.callbacks.ModelCheckpoint(monitor="valid", save_top_k=2, save_last=True)
    stopping, seen = pl.callbacks.EarlyStopping("valid", patience=50), Epochs()
    trainer = pl.Trainer(
        max_epochs=int(os.environ["EPOCHS"]),
        accelerator="cpu",
        devices=1,
        default_root_dir=OUT,
        logger=pl.loggers.CSVLogger(OUT),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=int(os.environ["ACCUMULATE"]),
        callbacks=[best, stopping, seen, TrainerdCallback(OUT / "run", every={"steps": 3, "epochs": 1})],
    )
    module = Module()
    trainer.fit(
        module,
        torch.utils.data.DataLoader(Noisy(26), batch_size=4, shuffle=True, num_workers=workers),
        torch.utils.data.DataLoader(Noisy(9), batch_size=4, num_workers=workers),
    )
    result = {
        "model": [each.tolist() for each in module.state_dict().values()],
        "optimizer": repr(trainer.optimizers[0].state_dict()),
        "scheduler": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        "stopping": repr(stopping.state_dict()),
        "seen": seen.seen,
        "best": {Path(path).name: float(score) for path, score in best.best_k_models.items()},
        "files": sorted(each.relative_to(OUT).as_posix() for each in OUT.rglob("*.ckpt")),
        "csv": (OUT / "lightning_logs" / "version_0" / "metrics.csv").read_text(),
        "random": torch.get_rng_state().tolist()[:40],
        "steps": calls["step"],
    }
    (OUT / "result.json").write_text(json.dumps(result, default=repr))


if __name__ == "__main__":
    main()
