"""A protected Transformers `Trainer` in one process: crashes, longer runs, early stops, refusals."""

from __future__ import annotations

from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.in_process import attempt
from trainerd.errors import UserError

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("transformers") is None or find_spec("accelerate") is None,
        reason="transformers and accelerate are not installed",
    ),
]


@pytest.fixture
def scripts() -> Any:
    """Import Transformers where a test needs it, not at the collection of every run."""
    from tests.support import transformers_program

    return transformers_program


@pytest.mark.parametrize("accumulate", [1, 3])
def test_crashes_change_nothing_and_a_finished_run_trains_nothing(
    scripts: Any, accumulate: int, tmp_path: Path
) -> None:
    options = {"gradient_accumulation_steps": accumulate}
    undisturbed: dict[str, Any] = {}
    assert attempt(tmp_path / "a" / "run", scripts.program(tmp_path / "a", undisturbed, **options), steps=1)
    found: dict[str, Any] = {}
    train = scripts.program(tmp_path / "b", found, **options)
    for crash_at in (2, 2, 1):
        assert not attempt(tmp_path / "b" / "run", train, crash_at=crash_at, steps=1)
    assert attempt(tmp_path / "b" / "run", train, steps=1)
    assert found == undisturbed
    found.clear()
    assert attempt(tmp_path / "b" / "run", train, crash_at=1, steps=1)
    assert found == undisturbed


def test_a_model_that_draws_random_numbers_is_resumed_exactly(scripts: Any, tmp_path: Path) -> None:
    """What upstream's test_resume_training_with_randomness asks, which is skipped there: equal to the bit."""
    undisturbed: dict[str, Any] = {}
    train = scripts.program(tmp_path / "a", undisturbed, model=scripts.Drawing)
    assert attempt(tmp_path / "a" / "run", train, steps=1)
    for crash_at in (2, 6):  # within an epoch, and in the next one
        found: dict[str, Any] = {}
        out = tmp_path / str(crash_at)
        train = scripts.program(out, found, model=scripts.Drawing)
        assert not attempt(out / "run", train, crash_at=crash_at, steps=1)
        assert attempt(out / "run", train, steps=1)
        assert found == undisturbed


def test_more_epochs_continue_a_finished_run(scripts: Any, tmp_path: Path) -> None:
    longer: dict[str, Any] = {}
    assert attempt(tmp_path / "a" / "run", scripts.program(tmp_path / "a", longer, num_train_epochs=3))
    found: dict[str, Any] = {}
    assert attempt(tmp_path / "b" / "run", scripts.program(tmp_path / "b", found))
    assert found != longer
    assert attempt(tmp_path / "b" / "run", scripts.program(tmp_path / "b", found, num_train_epochs=3))
    assert found == longer


def test_a_run_that_was_stopped_early_is_finished(scripts: Any, tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    train = scripts.program(tmp_path, found, patience=1, num_train_epochs=5)
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
    scripts: Any, options: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=named):
        scripts.protect(scripts.trainer_in(tmp_path, **options), None)


def test_an_iterable_is_refused(scripts: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Endless"):
        scripts.protect(scripts.trainer_in(tmp_path, data=scripts.Endless(), max_steps=3), None)


def test_a_sampler_that_remembers_is_named(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Turning:
        passes = 0

        def __len__(self) -> int:
            return 10

        def __iter__(self) -> Any:
            self.passes += 1
            return iter([(3 * number + self.passes) % 10 for number in range(10)])

    train = scripts.program(tmp_path, {})
    attempt(tmp_path / "stock", train, crash_at=6, steps=1)
    assert attempt(tmp_path / "stock", train, steps=1)
    assert "changed during training" not in capfd.readouterr().err
    monkeypatch.setattr(scripts.Trainer, "_get_train_sampler", lambda *_: Turning())
    attempt(tmp_path / "own", train, crash_at=6, steps=1)
    assert attempt(tmp_path / "own", train, steps=1)
    assert "Turning: its passes changed" in capfd.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataset_that_changes_as_it_is_read_is_named(
    scripts: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    train = scripts.program(tmp_path, {}, data=scripts.Counting(), dataloader_num_workers=workers)
    attempt(tmp_path / "run", train, crash_at=6, steps=1)
    assert attempt(tmp_path / "run", train, steps=1)
    assert "Counting: its reads changed as samples were read" in capfd.readouterr().err


def test_attributes_of_a_trainer_and_of_a_callback_go_on(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's trainers sum up what they log, and a trainer of the script may weigh its loss by former ones."""

    class Weighing(scripts.Trainer):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.seen = {"train": defaultdict(list)}
            self.center = torch.zeros(())

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            found = super().compute_loss(model, inputs, *args, **kwargs)
            loss = found[0] if isinstance(found, tuple) else found
            if model.training:
                self.center = 0.9 * self.center + 0.1 * loss.detach()
                self.seen["train"]["loss"].append(loss.item())
                loss = loss * (1 + self.center)
            return (loss, *found[1:]) if isinstance(found, tuple) else loss

        def log(self, logs: dict[str, Any], *args: Any) -> None:
            super().log({**logs, "sum": sum(self.seen["train"].pop("loss", []))}, *args)

    class Damping(scripts.TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any, **_: Any) -> None:
            self.steps.append(state.global_step)
            optimizer.param_groups[0]["lr"] = 0.05 / len(self.steps)

    monkeypatch.setattr(scripts, "Trainer", Weighing)
    undisturbed: dict[str, Any] = {}
    train = scripts.program(tmp_path / "a", undisturbed, callbacks=[Damping])
    assert attempt(tmp_path / "a" / "run", train, steps=1)
    found: dict[str, Any] = {}
    train = scripts.program(tmp_path / "b", found, callbacks=[Damping])
    for crash_at in (2, 2, 1):
        assert not attempt(tmp_path / "b" / "run", train, crash_at=crash_at, steps=1)
    assert attempt(tmp_path / "b" / "run", train, steps=1)
    assert found == undisturbed


def test_an_attribute_that_no_checkpoint_can_hold_is_named(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Keeping(scripts.Trainer):  # type: ignore[misc]
        kept: list[Any]

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            self.kept = [object()]
            return super().compute_loss(*args, **kwargs)

    monkeypatch.setattr(scripts, "Trainer", Keeping)
    train = scripts.program(tmp_path, {})
    assert not attempt(tmp_path / "run", train, crash_at=2, steps=1)
    assert attempt(tmp_path / "run", train, steps=1)
    assert "trainer.kept: it changed during training" in capfd.readouterr().err
