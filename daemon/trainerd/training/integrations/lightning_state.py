"""What of a Lightning trainer belongs to the state of a run: its own checkpoint, and what that leaves out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainerd.training.integrations.lightning_loggers import loggers_state
from trainerd.training.integrations.lightning_metrics import put_back_metrics, running_metrics
from trainerd.training.state.plain_tree import plain_tree
from trainerd.training.state.tensors import is_encodable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HYPERPARAMETERS: Final = (
    "hyper_parameters",
    "hparams_name",
    "hparams_type",
    "datamodule_hyper_parameters",
    "datamodule_hparams_name",
    "datamodule_hparams_type",
)
"""Never read by a resumed fit, and often of a kind that a checkpoint refuses."""

_LEFT_OUT: Final = (
    "_last_global_step_saved",
    "_last_checkpoint_saved",
    "_defer_save_until_validation",
    "current_score",
)
"""Attributes of a `ModelCheckpoint` that its ``state_dict`` or its ``load_state_dict`` leaves out."""


class LightningState:
    """The state of a trainer. Lightning itself puts its checkpoint back, from `checkpoint`.

    Args:
        trainer: The trainer.
        loaders: Returns what the loaders remember, by number.

    Attributes:
        saved: What the checkpoint of the run holds, None in a fresh run.
        is_waiting: Whether the trainer does not have all of it yet.
        epoch_offset: Epochs that the trainer had finished when the run began, in another run.
    """

    def __init__(self, trainer: Any, loaders: Callable[[], dict[str, Any]]) -> None:
        self.saved: dict[str, Any] | None = None
        self.is_waiting = False
        self.epoch_offset = 0
        self._trainer = trainer
        self._loaders = loaders
        self._is_put_back = False
        self._loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return Lightning's checkpoint, and what that leaves out."""
        if self.is_waiting and self.saved is not None:
            return self.saved
        trainer = self._trainer
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)  # noqa: SLF001
        for name in _HYPERPARAMETERS:
            if name in checkpoint and not is_encodable(plain_tree(checkpoint[name])):
                del checkpoint[name]
        return {
            "checkpoint": plain_tree(checkpoint),
            "running": running_metrics(trainer),
            "limits": [trainer.fit_loop.max_epochs, trainer.max_steps],
            "should_stop": trainer.should_stop,
            "epoch_offset": self.epoch_offset,
            "loggers": loggers_state(trainer),
            "files": {str(number): _files_of(each) for number, each in self._savers()},
            "loaders": self._loaders(),
        }

    def of_loader(self, number: int) -> dict[str, Any] | None:
        """Return what the checkpoint of the run holds of a loader, None if nothing."""
        found: dict[str, Any] | None = (self.saved or {}).get("loaders", {}).get(str(number))
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the state; `put_back` puts it into the trainer."""
        self.saved = state
        self.is_waiting = not self._is_put_back
        self.epoch_offset = state["epoch_offset"]

    def checkpoint(self) -> dict[str, Any]:
        """Return Lightning's checkpoint, for Lightning to load and for hooks to change."""
        assert self.saved is not None
        self._loaded = self._copy()
        return self._loaded

    def _copy(self) -> dict[str, Any]:
        """Return a copy of the checkpoint. Optimizers take tensors as they are; a module copies them."""
        assert self.saved is not None
        found = dict(self.saved["checkpoint"])
        for name, value in found.items():
            found[name] = dict(value) if name == "state_dict" else copy.deepcopy(value)
        return found

    def put_back(self) -> None:
        """Put back what hooks may have changed since Lightning has loaded its checkpoint."""
        if self.saved is None or self._is_put_back:
            return
        self._is_put_back, self.is_waiting = True, False
        trainer = self._trainer
        # Hooks such as those of averaged weights have changed what is loaded into the module.
        loaded, self._loaded = self._loaded, {}
        trainer.strategy.load_model_state_dict(loaded, strict=trainer.lightning_module.strict_loading)
        checkpoint = self._copy()
        for config, state in zip(trainer.lr_scheduler_configs, checkpoint["lr_schedulers"], strict=True):
            config.scheduler.load_state_dict(state)
        if trainer.strategy.lightning_restore_optimizer:
            trainer.strategy.load_optimizer_state_dict(checkpoint)
        put_back_metrics(trainer, self.saved["running"])

    def put_back_savers(self) -> None:
        """Put back what `ModelCheckpoint` callbacks knew, and which files there were."""
        assert self.saved is not None
        for number, saver in self._savers():
            state = self.saved["files"].get(str(number))
            if state is not None:
                for name, value in state["attributes"].items():
                    setattr(saver, name, value)
                _forget_later_files(saver, set(state["names"]))

    def _savers(self) -> Iterator[tuple[int, Any]]:
        for number, each in enumerate(self._trainer.callbacks):
            if hasattr(each, "best_k_models") and hasattr(each, "file_exists"):
                yield number, each


def _files_of(saver: Any) -> dict[str, Any]:
    attributes = {name: getattr(saver, name) for name in _LEFT_OUT if hasattr(saver, name)}
    return {"attributes": plain_tree(attributes), "names": sorted(_names_below(saver.dirpath))}


def _names_below(folder: Any) -> set[str]:
    """Return the files of a local folder; none if it is remote or missing."""
    path = Path(str(folder))
    return {each.name for each in path.iterdir()} if folder and path.is_dir() else set()


def _forget_later_files(saver: Any, known: set[str]) -> None:
    """Have a `ModelCheckpoint` overwrite the files that an attempt wrote after the checkpoint.

    It would give them another name, as it does where a file of another run is in the way.
    """
    later = _names_below(saver.dirpath) - known
    former = saver.file_exists

    def file_exists(filepath: Any, trainer: Any) -> bool:
        name = Path(str(filepath)).name
        # Ranks list a folder at different times: what rank 0 found holds for all, as in Lightning.
        is_later = trainer.strategy.broadcast(name in later)
        later.discard(name)
        return bool(former(filepath, trainer)) and not is_later

    saver.file_exists = file_exists
