"""A training with Lightning that notices everything and kills itself where it is told to.

Variables: OUT, PACKAGE, WORKERS, ACCUMULATE, EPOCHS and KILLS, such as ``step5:KILL,valid2:TERM``: one for
each attempt. Calls are counted in each attempt.
"""

from __future__ import annotations

import collections
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

from tests.support.lightning_parts import Epochs, Model, pl
from trainerd.integrations.lightning import TrainerdCallback

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


class Module(Model):
    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"rate": 0.01, "names": ["a", "b"], "kind": Noisy})

    def training_step(self, batch, batch_idx):
        loss = self.logged_loss(batch)
        reach("step")
        return loss

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            reach("valid")
        self.log_validation(batch)

    def on_train_epoch_end(self):
        reach("epoch")

    def on_save_checkpoint(self, checkpoint):
        reach("save")


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
