"""A protected Transformers `Trainer` in one process: crashes, longer runs, early stops, refusals."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from tests.support.in_process import Loop, attempt
from trainerd.errors import UserError

if find_spec("transformers") is None or find_spec("accelerate") is None:
    pytest.skip("transformers and accelerate are not installed", allow_module_level=True)

try:
    import torchvision  # noqa: F401 - Transformers imports it where it is installed
except Exception:  # noqa: BLE001 - a build for CUDA beside a PyTorch without raises errors of many kinds
    sys.modules["torchvision"] = None  # type: ignore[assignment] # so it is not found

from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from trainerd.integrations.transformers import protect

pytestmark = [pytest.mark.torch, pytest.mark.slow]


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": torch.full((2,), index / 10) + torch.rand(2) * 0.1, "labels": torch.ones(1)}


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


class Ticking(TrainerCallback):
    def __init__(self, tick: Any) -> None:
        self.tick = tick

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        torch.rand(1)
        self.tick()


def trainer_in(out: Path, *callbacks: Any, data: Any = None, **options: Any) -> Any:
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
        Net(), arguments, train_dataset=data or Noisy(), eval_dataset=Noisy(), callbacks=list(callbacks)
    )


def program(out: Path, found: dict[str, Any], *, patience: int = 50, **options: Any) -> Loop:
    """Return a training script that notes what it ends with in `found`."""

    def train(session: Any, tick: Any) -> None:
        stopping = EarlyStoppingCallback(patience, 0.0 if patience > 1 else 1e9)
        trainer = trainer_in(out, stopping, Ticking(tick), **options)
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
            random=torch.get_rng_state().tolist()[:40],
        )

    return train


@pytest.mark.parametrize("accumulate", [1, 3])
def test_crashes_change_nothing_and_a_finished_run_trains_nothing(accumulate: int, tmp_path: Path) -> None:
    options = {"gradient_accumulation_steps": accumulate}
    undisturbed: dict[str, Any] = {}
    assert attempt(tmp_path / "a" / "run", program(tmp_path / "a", undisturbed, **options), steps=1)
    found: dict[str, Any] = {}
    train = program(tmp_path / "b", found, **options)
    for crash_at in (2, 2, 1):
        assert not attempt(tmp_path / "b" / "run", train, crash_at=crash_at, steps=1)
    assert attempt(tmp_path / "b" / "run", train, steps=1)
    assert found == undisturbed
    found.clear()
    assert attempt(tmp_path / "b" / "run", train, crash_at=1, steps=1)
    assert found == undisturbed


def test_more_epochs_continue_a_finished_run(tmp_path: Path) -> None:
    longer: dict[str, Any] = {}
    assert attempt(tmp_path / "a" / "run", program(tmp_path / "a", longer, num_train_epochs=3))
    found: dict[str, Any] = {}
    assert attempt(tmp_path / "b" / "run", program(tmp_path / "b", found))
    assert found != longer
    assert attempt(tmp_path / "b" / "run", program(tmp_path / "b", found, num_train_epochs=3))
    assert found == longer


def test_a_run_that_was_stopped_early_is_finished(tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    train = program(tmp_path, found, patience=1, num_train_epochs=5)
    assert attempt(tmp_path / "run", train)
    first = dict(found)
    assert first["step"] == 8, "the second evaluation is no better by as much as is asked for"
    assert attempt(tmp_path / "run", train, crash_at=1)
    assert found == first


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"auto_find_batch_size": True}, "auto_find_batch_size"),
        ({"ignore_data_skip": True}, "ignore_data_skip"),
    ],
    ids=["batch-size", "data-skip"],
)
def test_an_option_that_cannot_be_exact_is_refused(
    options: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=named):
        protect(trainer_in(tmp_path, **options), None)  # type: ignore[arg-type] - nothing is opened


def test_an_iterable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Endless"):
        protect(trainer_in(tmp_path, data=Endless(), max_steps=3), None)  # type: ignore[arg-type] - as above
