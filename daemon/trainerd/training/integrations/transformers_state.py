"""What of a Transformers `Trainer` belongs to the state of a run, besides model, optimizer and scheduler."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch
from transformers.trainer_callback import ExportableState

from trainerd.training.integrations.transformers_attributes import TrainerAttributes
from trainerd.training.integrations.transformers_measured import apart, together

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trainerd.contract.verdict import Reason

_COUNTERS: Final = ("_total_loss_scalar", "_globalstep_last_logged", "_initial_global_step", "current_flos")
"""Attributes of the trainer that it sets to zero in each attempt. With them goes ``_tr_loss``, a tensor."""

_OF_THE_RUN: Final = (
    "log_history",
    "total_flos",
    "num_input_tokens_seen",
    "best_metric",
    "best_global_step",
    "best_model_checkpoint",
)
"""Fields of its `TrainerState` that what runs before the first step may change."""


class TrainerRun:
    """The counters of a trainer, its `TrainerState`, its own attributes, and its callbacks with a state.

    Args:
        trainer: The `transformers.Trainer`.
        suspect: Takes in that an attribute changed that no checkpoint can hold.

    Attributes:
        saved: What the checkpoint holds, None in a fresh run.
        output: The result of a complete run, with its log.
        trainerd_measured: Names in the state that no drill compares.
    """

    trainerd_measured: ClassVar = ("measured", "attributes")
    """Trainers keep times among their attributes. What else these decide shows in logs and weights."""

    def __init__(self, trainer: Any, suspect: Callable[[Reason], None]) -> None:
        self.saved: dict[str, Any] | None = None
        self.output: dict[str, Any] | None = None
        self._trainer = trainer
        self._attributes = TrainerAttributes(trainer, suspect)
        self._frozen: dict[str, Any] | None = None
        self._is_waiting = False

    def begin(self) -> None:
        """Training begins: note what the trainer and its callbacks are like."""
        self._attributes.begin()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the run; after its end that of the last boundary, with the result."""
        if self._is_waiting and self.saved is not None:
            return self.saved
        if self._frozen is not None:
            return self._with_output(self._frozen)
        trainer = self._trainer
        state, measured = apart(dataclasses.asdict(trainer.state))
        return {
            "state": json.dumps(state, sort_keys=True),
            "measured": json.dumps({"state": measured, "output": []}),
            "callbacks": json.dumps([each.state() for each in self._callbacks()]),
            "is_stopped": bool(trainer.control.should_training_stop),
            "loss": getattr(trainer, "_tr_loss", torch.tensor(0.0)).detach().clone(),
            "counters": {name: getattr(trainer, name, 0) for name in _COUNTERS},
            "attributes": self._attributes.changed(),
            "output": None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Note what was saved; `put_back` puts it into the trainer."""
        self.saved, self._is_waiting = state, True

    def freeze(self) -> None:
        """The run is trained: what the trainer adds at its end is no state that a longer run goes on from."""
        self._frozen = self.state_dict()

    def freeze_as_saved(self) -> dict[str, Any]:
        """The run was finished before, and nothing of it is done again: return its result."""
        assert self.saved is not None
        output: dict[str, Any] = self._joined("output")
        self._frozen, self.output = self.saved, output
        return output

    def saved_state(self) -> dict[str, Any]:
        """Return the saved `TrainerState`."""
        found: dict[str, Any] = self._joined("state")
        return found

    def _with_output(self, frozen: dict[str, Any]) -> dict[str, Any]:
        if self.output is None:
            return {**frozen, "output": None}
        output, measured = apart(self.output)
        both = {**_measured_of(frozen), "output": measured}
        return {**frozen, "output": json.dumps(output, sort_keys=True), "measured": json.dumps(both)}

    def _joined(self, name: str) -> Any:
        assert self.saved is not None
        return together(json.loads(self.saved[name]), _measured_of(self.saved).get(name, []))

    def write(self, folder: Path) -> None:
        """Write the saved `TrainerState` where the trainer reads one."""
        (folder / "trainer_state.json").write_text(json.dumps(self.saved_state(), sort_keys=True))

    def put_back(self) -> None:
        """Put what was saved into the trainer."""
        saved, trainer = self.saved, self._trainer
        self._is_waiting = False
        if saved is None:
            return
        trainer._tr_loss = saved["loss"].to(trainer.args.device).clone()  # noqa: SLF001 - no public name
        for name, value in saved["counters"].items():
            setattr(trainer, name, value)
        self._attributes.put_back(saved.get("attributes", {}))  # a checkpoint of an older version has none
        state = self.saved_state()
        for name in _OF_THE_RUN:
            if name in state:
                setattr(trainer.state, name, state[name])
        for callback, entry in zip(self._callbacks(), json.loads(saved["callbacks"]), strict=False):
            for name, value in entry["attributes"].items():
                setattr(callback, name, value)

    def _callbacks(self) -> list[Any]:
        return [
            each for each in self._trainer.callback_handler.callbacks if isinstance(each, ExportableState)
        ]


def _measured_of(state: dict[str, Any]) -> dict[str, Any]:
    """Return the measured values of a state; a checkpoint of an older version has them in their places."""
    found: dict[str, Any] = json.loads(state.get("measured", "{}"))
    return found
