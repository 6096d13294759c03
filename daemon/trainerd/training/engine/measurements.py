"""What the script measures: rows of the metric history, one a step, and scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from trainerd.contract.metric_history import encode_row
from trainerd.errors import NonFiniteLossError, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.training.engine.history import HistoryWriter
    from trainerd.training.engine.run_state import RunState
    from trainerd.training.engine.silent_history import SilentHistory


class Measurements:
    """Measurements of the step in progress, and of those before it in the history.

    Args:
        state: State of the run.
        history: Metric history.
        stops_on_nonfinite: Whether a loss that is not finite is an error.

    Attributes:
        last_loss: Newest loss, NaN before the first.
    """

    def __init__(
        self, state: RunState, history: HistoryWriter | SilentHistory, *, stops_on_nonfinite: bool
    ) -> None:
        self.last_loss = math.nan
        self._state = state
        self._history = history
        self._stops_on_nonfinite = stops_on_nonfinite
        self._row: dict[str, Any] = {}

    def note(self, values: Mapping[str, Any]) -> None:
        """Note measurements of the step in progress.

        Raises:
            UserError: A value is not a number.
            NonFiniteLossError: The loss is NaN or infinite.
        """
        row = self._row
        for name, value in values.items():
            row[name] = value if type(value) is float else as_number(name, value)
        if "loss" in values:
            self.last_loss = float(row["loss"])
            if self._stops_on_nonfinite and not math.isfinite(self.last_loss):
                step = self._state.position.step
                raise NonFiniteLossError(f"the loss after step {step} is {self.last_loss}")

    def forget(self) -> None:
        """Drop what was noted since the last step: it was noted before, by an earlier attempt."""
        self._row = {}

    def end_step(self, batch: int) -> tuple[str | None, dict[str, Any]] | None:
        """Write the row of the step that is done.

        Args:
            batch: Last batch of the step.

        Returns:
            Digest of the samples so far, and what was measured; None if nothing was.
        """
        if not self._row:
            return None
        row, self._row = self._row, {}
        position = self._state.position
        digest = f"{self._state.digest:016x}" if self._state.digest else None
        self._history.line(encode_row(position.step, position.epoch, batch, row, digest))
        return digest, row

    def report(self, scores: Mapping[str, float]) -> None:
        """Write a row with scores of the state as it is."""
        position = self._state.position
        self._history.row({"report": True, "step": position.step, "epoch": position.epoch, **scores})


def as_number(name: str, value: Any) -> int | float:
    """Return the number that a user measured.

    Raises:
        UserError: It is none.
    """
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UserError(f"log and report take numbers: {name}={value!r:.60} is none")
    return number
