"""A Transformers job that notices everything and is struck where it is told."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

import trainerd
from tests.support.strikes import strike

try:
    import torchvision  # noqa: F401 - Transformers imports it where it is installed
except Exception:  # noqa: BLE001 - a build for CUDA beside a PyTorch without raises errors of many kinds
    sys.modules["torchvision"] = None  # type: ignore[assignment] - so it is not found

from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from trainerd.integrations.transformers import protect

EPOCHS = 3


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return 41

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        x = torch.full((8,), index / 41) + 0.1 * torch.rand(8) + 0.01 * random.random()
        return {"x": x, "labels": torch.tensor([index % 5 / 5])}


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))

    def forward(self, x: Any = None, labels: Any = None) -> dict[str, torch.Tensor]:
        found = self.net(x)
        return {"loss": (found - labels).square().mean(), "found": found}


class Strike(TrainerCallback):
    """Ends the process, or asks it to stop, in the middle of what its place names."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        strike(str(state.global_step + 1))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        strike(f"{state.global_step}.5")

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        strike(f"validation{state.global_step}")

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        strike(f"end{state.global_step}")

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        strike(f"epoch{state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        strike(f"trained{state.global_step}")


def main() -> None:
    out = Path(os.environ["JOB_OUT"])
    torch.set_num_threads(1)
    torch.manual_seed(1)
    arguments = TrainingArguments(
        str(out / "hf"),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=16,
        gradient_accumulation_steps=int(os.environ["JOB_ACCUMULATE"]),
        learning_rate=1e-2,
        logging_steps=2,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        metric_for_best_model="loss",
        load_best_model_at_end=os.environ.get("JOB_BEST") == "1",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ else None,
        dataloader_num_workers=int(os.environ["JOB_WORKERS"]),
        seed=7,
    )
    with trainerd.session(
        out / "run", seed=0, every={"steps": 2, "epochs": 1, "seconds": None}, keep_last=None
    ) as session:
        stopping = EarlyStoppingCallback(50)
        trainer = Trainer(
            Net(),
            arguments,
            train_dataset=Noisy(),
            eval_dataset=Noisy(),
            callbacks=[stopping, Strike()],
        )
        protect(trainer, session)
        result = trainer.train()
        log = [
            {name: value for name, value in row.items() if not name.endswith(("_runtime", "_per_second"))}
            for row in trainer.state.log_history
        ]
        found = {
            "model": [each.tolist() for each in trainer.model.state_dict().values()],
            "optimizer": repr(trainer.optimizer.state_dict()),
            "scheduler": repr(trainer.lr_scheduler.state_dict()),
            "log": log,
            "loss": result.training_loss,
            "step": result.global_step,
            "flos": trainer.state.total_flos,
            "stopping": stopping.state(),
            "best": [trainer.state.best_metric, trainer.state.best_global_step],
            "random": torch.get_rng_state().tolist()[:40],
        }
    if os.environ.get("RANK", "0") == "0":
        (out / "final.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
