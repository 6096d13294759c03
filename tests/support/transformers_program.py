"""A small `Trainer`, and a training script with it. Imports Transformers, which takes seconds."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from tests.support.in_process import Loop

try:
    import torchvision  # noqa: F401 - Transformers imports it where it is installed
except Exception:  # noqa: BLE001 - a build for CUDA beside a PyTorch without raises errors of many kinds
    sys.modules["torchvision"] = None  # type: ignore[assignment] # so it is not found

from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from trainerd.integrations.transformers import protect


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": torch.full((2,), index / 10) + torch.rand(2) * 0.1, "labels": torch.ones(1)}


class Counting(Noisy):
    """Counts its reads."""

    reads = 0

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        self.reads += 1
        return super().__getitem__(index) | {"x": torch.full((2,), self.reads / 50)}


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout(0.4), torch.nn.Linear(3, 1))

    def forward(self, x: Any = None, labels: Any = None) -> dict[str, torch.Tensor]:
        found = self.net(x)
        return {"loss": (found - labels).square().mean(), "found": found}


class Drawing(Net):
    """Draws from all three global generators in each step, as the model of the upstream test does."""

    def forward(self, x: Any = None, labels: Any = None) -> dict[str, torch.Tensor]:
        noise = torch.rand(1) + float(np.random.rand()) + random.random()
        return super().forward(x + 0.1 * noise, labels)


class Ticking(TrainerCallback):
    def __init__(self, tick: Any) -> None:
        self.tick = tick

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        torch.rand(1)
        self.tick()


def trainer_in(out: Path, *callbacks: Any, data: Any = None, model: Any = Net, **options: Any) -> Any:
    chosen = {"num_train_epochs": 2, "eval_strategy": "epoch", "metric_for_best_model": "loss", **options}
    arguments = TrainingArguments(
        str(out / "hf"),
        per_device_train_batch_size=3,
        learning_rate=0.05,
        lr_scheduler_type="constant",
        logging_steps=3,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **chosen,
    )
    return Trainer(
        model(), arguments, train_dataset=data or Noisy(), eval_dataset=Noisy(), callbacks=list(callbacks)
    )


def program(
    out: Path, found: dict[str, Any], *, patience: int = 50, callbacks: Any = (), **options: Any
) -> Loop:
    """Return a training script that notes what it ends with in `found`. Callbacks are given as classes."""

    def train(session: Any, tick: Any) -> None:
        stopping = EarlyStoppingCallback(patience, 0.0 if patience > 1 else 1e9)
        trainer = trainer_in(out, stopping, Ticking(tick), *[each() for each in callbacks], **options)
        protect(trainer, session)
        result = trainer.train()
        found.update(
            model=[each.tolist() for each in trainer.model.state_dict().values()],
            optimizer=repr(trainer.optimizer.state_dict()),
            scheduler=repr(trainer.lr_scheduler.state_dict()),
            log=[
                {key: row[key] for key in row if not key.endswith(("_runtime", "_per_second"))}
                for row in trainer.state.log_history
            ],
            loss=result.training_loss,
            step=result.global_step,
            flos=trainer.state.total_flos,
            stopping=stopping.state(),
            random=[  # as they are: a draw would be part of what a finished run gets back
                torch.get_rng_state().tolist(),
                repr(random.getstate()),
                [repr(each) for each in np.random.get_state()],
            ],
        )

    return train
