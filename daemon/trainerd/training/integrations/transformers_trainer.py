"""Transformers: a protected `Trainer` is drained, resumed exactly, and continued.

The boundary of a step comes when the next one begins: its log, evaluation and save have run by then, and
those of the epoch if it was its last. The trainer finds its place by itself, from a `TrainerState` in a
folder, as it does with its own checkpoints. What it loads from such a folder besides is in our checkpoint:
the methods that do that are replaced on the instance.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainerCallback
from transformers.trainer_utils import TrainOutput

from trainerd.errors import UserError
from trainerd.training.data.exact_loader import ExactLoader, exact
from trainerd.training.data.pass_memory import LoaderWatch
from trainerd.training.integrations.replaced_methods import check_methods
from trainerd.training.integrations.transformers_measured import MEASURED_ENDS
from trainerd.training.integrations.transformers_state import TrainerRun

if TYPE_CHECKING:
    from trainerd.training.drive import Drive, DrivenPlace
    from trainerd.training.session import Session

_LOADS: Final = (
    "_load_from_checkpoint",
    "_load_optimizer_and_scheduler",
    "_load_rng_state",
    "_load_scaler",
)
"""What the trainer loads from one of its own checkpoints, and finds in ours when it resumes from there."""

_REPLACED: Final = ("get_train_dataloader", "_run_epoch", "_finalize_training", *_LOADS)


def protect(trainer: Any, session: Session) -> Drive:
    """Have a session protect a Transformers `Trainer`. Its ``train`` resumes, and drains when asked to stop.

    Tracked are the model, the optimizer, the scheduler, the gradient scaler, the trainer's loss and counters,
    its `TrainerState` and the callbacks that Transformers calls exportable. The training data becomes a
    function of ``args.seed`` (or ``args.data_seed``), epoch and batch.

    ``resume_from_checkpoint`` counts for an attempt that finds no checkpoint of this session.

    Args:
        trainer: The `transformers.Trainer`.
        session: An open session.

    Returns:
        The drive of the session.

    Raises:
        UserError: This version of Transformers lacks a method that is replaced, an option of the trainer
            cannot be resumed exactly, or the trainer is protected already.
    """
    check_methods(trainer, _REPLACED, framework="Transformers", by="protect()")
    if "train" in vars(trainer):
        raise UserError("this trainer is protected by a session already")
    _check_options(trainer)
    protected = _ProtectedTrainer(trainer, session)
    trainer.train = protected.train
    return protected.drive


def _check_options(trainer: Any) -> None:
    options = {
        "auto_find_batch_size": trainer.args.auto_find_batch_size,
        "deepspeed": trainer.is_deepspeed_enabled,
        "fsdp": trainer.is_fsdp_enabled,
        "ignore_data_skip": trainer.args.ignore_data_skip,
    }
    for name, is_set in options.items():
        if is_set:
            raise UserError(
                f"TrainingArguments({name}=...) cannot be resumed exactly by trainerd",
                hint=f"leave out {name}, or do not protect this trainer",
            )
    if isinstance(trainer.train_dataset, IterableDataset):
        raise UserError(
            f"the train_dataset is an iterable ({type(trainer.train_dataset).__qualname__}), which can "
            "not be resumed exactly",
            hint="pass a map-style dataset",
        )


class _ProtectedTrainer(TrainerCallback):
    def __init__(self, trainer: Any, session: Session) -> None:
        self.drive: Drive = session.drive()
        self._trainer = trainer
        self._session = session
        self._run = TrainerRun(trainer, self.drive.suspect)
        self._place: DrivenPlace | None = None
        self._step = self._epoch = 0
        self._is_put_back = self._is_over = False
        self._names: list[str] = []
        self._watches: list[LoaderWatch] = []
        self._former = {name: getattr(trainer, name) for name in ("train", *_REPLACED)}
        session.track(transformers=self._run)

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """Train from where the run is. A complete run is not trained again."""
        trainer = self._trainer
        trainer.get_train_dataloader = self._get_train_dataloader
        trainer._run_epoch = self._run_epoch  # noqa: SLF001 - see the module
        trainer._finalize_training = self._finalize_training  # noqa: SLF001
        trainer.callback_handler.callbacks.insert(0, self)  # before what others do when a step begins
        self._run.saved = self.drive.saved_state("transformers")
        self._run.begin()
        try:
            if self._run.saved is None:
                return self._former["train"](resume_from_checkpoint, **options)
            for name in _LOADS:
                setattr(trainer, name, lambda *_args, **_kwargs: None)
            with tempfile.TemporaryDirectory() as folder:
                self._run.write(Path(folder))
                return self._former["train"](folder, **options)
        finally:
            self.drive.raise_if_left()

    # ------------------------------------------------------------------ events

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, control
        trainer = self._trainer
        optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
        parts = {"model": trainer.model, "optimizer": optimizer, "scheduler": trainer.lr_scheduler}
        if getattr(trainer.accelerator, "scaler", None) is not None:
            parts["scaler"] = trainer.accelerator.scaler
        known = {id(value) for value in self.drive.tracked.values()}
        self._session.track(**{name: part for name, part in parts.items() if id(part) not in known})
        self._place = self.drive.begin(epochs=state.num_train_epochs)
        self._names = list(self.drive.tracked)
        self._step, self._epoch = self._place.step, self._place.epoch

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, control
        if not self._is_put_back:
            self._put_back()
        self._note(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        del args, state, control
        if self._is_over or not self._is_put_back:
            return
        values = {
            name: float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float) and not name.endswith(MEASURED_ENDS) and name != "epoch"
        }
        if values:
            self._session.log(**values)

    # ------------------------------------------------------------------ boundaries

    def _put_back(self) -> None:
        self._is_put_back = True
        self.drive.put_back(*self._names)
        self._run.put_back()

    def _note(self, step: int) -> None:
        """Tell of the step that is done, and of the epoch if it was its last."""
        length = self._epoch_length()
        if step > self._step:
            self._step = step
            for each in self._watches:
                each.look()
            self.drive.step_done(step, self._epoch, step - self._epoch * length)
        if step >= (self._epoch + 1) * length:
            self.drive.epoch_done(self._epoch)
            self._epoch += 1

    def _epoch_length(self) -> int:
        loader = self._trainer.callback_handler.train_dataloader
        accumulated: int = self._trainer.args.gradient_accumulation_steps
        return max(math.ceil(len(loader) / accumulated), 1)

    # ------------------------------------------------------------------ what is replaced

    def _get_train_dataloader(self) -> Any:
        accelerator, args = self._trainer.accelerator, self._trainer.args
        seed = args.seed if args.data_seed is None else args.data_seed
        former = accelerator.prepare

        def prepare(*objects: Any, **options: Any) -> Any:
            made = [exact(each, seed) if isinstance(each, DataLoader) else each for each in objects]
            self._watches = [
                LoaderWatch(each, self.drive.suspect) for each in made if isinstance(each, ExactLoader)
            ]
            return former(*made, **options)

        accelerator.prepare = prepare
        try:
            return self._former["get_train_dataloader"]()
        finally:
            accelerator.prepare = former

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        saved, state = self._run.saved, self._trainer.state
        was_stopped = saved is not None and not self._is_put_back and saved["is_stopped"]
        if was_stopped and saved is not None and state.max_steps <= self._run.saved_state()["max_steps"]:
            self._trainer.control.should_training_stop = True  # by a callback, in an attempt before
            return
        self._former["_run_epoch"](*args, **kwargs)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        trainer, saved = self._trainer, self._run.saved
        is_untrained = not self._is_put_back
        if is_untrained:
            self._put_back()
        if is_untrained and saved is not None and saved["output"] is not None:
            self._is_over = True
            result = self._run.freeze_as_saved()
            trainer.state.log_history = result["log"]
            trainer.is_in_train = False
            return TrainOutput(result["step"], result["loss"], result["metrics"])
        self._note(trainer.state.global_step)
        self._is_over = True
        self._run.freeze()
        found = self._former["_finalize_training"](*args, **kwargs)
        self._run.output = {
            "step": found.global_step,
            "loss": found.training_loss,
            "metrics": found.metrics,
            "log": trainer.state.log_history,
        }
        return found
