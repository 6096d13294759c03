"""What the script measures: rows of the metric history, one a step, and scores."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from trainerd.contract.metric_history import encode_row
from trainerd.errors import NonFiniteLossError, UserError
from trainerd.training.engine.arriving_rows import LateRow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from trainerd.contract.metric_history import Place
    from trainerd.training.engine.arriving_rows import ArrivingRows
    from trainerd.training.engine.device_values import Number, ValueBatch, ValueCopies
    from trainerd.training.engine.history import HistoryWriter
    from trainerd.training.engine.run_state import RunState
    from trainerd.training.engine.silent_history import SilentHistory

    Written = tuple[str | None, dict[str, Any]]
    StepDone = Callable[[Place, Written | None], None]
    Reported = Callable[[tuple[int, int], Mapping[str, float]], None]


class Measurements:
    """Measurements of the step in progress, and of those before it in the history.

    Numbers on a CUDA device are not waited for: their rows are written when they have arrived.

    Args:
        state: State of the run.
        history: Metric history.
        rows: Rows that are not in the history yet.
        copies: Copies numbers from devices.
        stops_on_nonfinite: Whether a loss that is not finite is an error.

    Attributes:
        last_loss: Newest loss that has arrived, NaN before the first.
    """

    def __init__(
        self,
        state: RunState,
        history: HistoryWriter | SilentHistory,
        rows: ArrivingRows,
        copies: ValueCopies,
        *,
        stops_on_nonfinite: bool,
    ) -> None:
        self.last_loss = math.nan
        self._state = state
        self._history = history
        self._rows = rows
        self._copies = copies
        self._stops_on_nonfinite = stops_on_nonfinite
        self._row: dict[str, Any] = {}
        self._batch: ValueBatch | None = None
        self._losses: list[Callable[[], Number]] = []
        self._step_noted = 0

    @property
    def has_any(self) -> bool:
        """Whether something was noted for the step in progress."""
        return bool(self._row)

    def note(self, values: Mapping[str, Any]) -> None:
        """Note measurements of the step in progress.

        Raises:
            UserError: A value is not a number.
            NonFiniteLossError: The loss, or one before it that has arrived by now, is NaN or infinite.
        """
        if self._rows.problem is not None:
            self._rows.check()
        row = self._row
        for name, value in values.items():
            if type(value) is float:
                row[name] = value
            elif self._copies.is_on_device(value):
                if self._batch is None:
                    self._batch = self._copies.batch()
                row[name] = self._batch.add(checked_scalar(name, value))
            else:
                row[name] = as_number(name, value)
        if "loss" in values:
            self._step_noted = self._state.position.step
            if callable(row["loss"]):
                self._losses.append(row["loss"])
            else:
                self._take_loss(self._step_noted, float(row["loss"]))

    def forget(self) -> None:
        """Drop what was noted since the last step: it was noted before, by an earlier attempt."""
        self._row, self._batch, self._losses = {}, None, []

    def end_step(self, batch: int, step_done: StepDone) -> None:
        """Write the row of the step that is done, or leave it to be written when its numbers have arrived.

        Args:
            batch: Last batch of the step.
            step_done: Given its place, and the digest of the samples so far with what was measured, or None
                if nothing was, once that is known.

        Raises:
            NonFiniteLossError: The loss of an earlier step has arrived, and is NaN or infinite.
        """
        row, late, losses = self._row, self._batch, self._losses
        self._row, self._batch, self._losses = {}, None, []
        position = self._state.position
        place = (position.step, position.epoch, batch)
        digest = f"{self._state.digest:016x}" if self._state.digest else None
        if late is None and not self._rows.waiting:
            if row:
                self._history.line(encode_row(*place, row, digest))
            step_done(place, (digest, row) if row else None)
            return

        def write(numbers: dict[str, Number]) -> Callable[[], None]:
            if numbers:
                self._history.line(encode_row(*place, numbers, digest))
            return functools.partial(step_done, place, (digest, numbers) if numbers else None)

        take_loss = functools.partial(self._take_loss, self._step_noted)
        self._rows.add(LateRow(row, write, late, take_loss, losses))
        self._rows.advance()

    def scores_of(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        """Return scores as numbers; those on a device as functions that wait for them and return them.

        Raises:
            UserError: A score is not a number.
        """
        return {name: self._score(name, score) for name, score in scores.items()}

    def _score(self, name: str, score: Any) -> Any:
        if not self._copies.is_on_device(score):
            return float(as_number(name, score))
        batch = self._copies.batch()
        return LateScore(batch, batch.add(checked_scalar(name, score)))

    def report(self, scores: Mapping[str, Any], reported: Reported) -> None:
        """Write a row with scores of the state as it is, or leave it to be written when they have arrived.

        Args:
            scores: What `scores_of` returned.
            reported: Given step and epoch, and the scores, once they are known.
        """
        position = self._state.position
        step, epoch = position.step, position.epoch

        def write(numbers: dict[str, Number]) -> Callable[[], None]:
            self._history.row({"report": True, "step": step, "epoch": epoch, **numbers})
            return functools.partial(reported, (step, epoch), numbers)

        late = [score for score in scores.values() if isinstance(score, LateScore)]
        if not late and not self._rows.waiting:
            write(dict(scores))()
            return
        self._rows.add(LateRow(scores, write, _All(late) if late else None))
        self._rows.advance()

    def _take_loss(self, step: int, loss: float) -> None:
        self.last_loss = loss
        if self._stops_on_nonfinite and not math.isfinite(loss):
            raise NonFiniteLossError(f"the loss after step {step} is {loss}")


class LateScore:
    """A score on its way from a device. Called, it waits and returns the number."""

    def __init__(self, batch: ValueBatch, read: Callable[[], Number]) -> None:
        self.batch = batch
        self._read = read

    def __call__(self) -> float:
        self.batch.wait()
        return float(self._read())


class _All:
    """Scores of one report, as one batch that is complete."""

    def __init__(self, scores: list[LateScore]) -> None:
        self._scores = scores

    def has_arrived(self) -> bool:
        return all(score.batch.has_arrived() for score in self._scores)

    def wait(self) -> None:
        for score in self._scores:
            score.batch.wait()


def checked_scalar(name: str, value: torch.Tensor) -> torch.Tensor:
    """Return a tensor that holds one number. Its value is not asked for.

    Raises:
        UserError: It holds several, or none.
    """
    if value.numel() != 1 or value.is_complex() or not (value.is_floating_point() or _is_integer(value)):
        shape = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        raise UserError(f"log and report take numbers: {name} is a tensor {shape}")
    return value


def _is_integer(value: torch.Tensor) -> bool:
    return "int" in str(value.dtype)


def as_number(name: str, value: Any) -> int | float:
    """Return the number that a user measured.

    Raises:
        UserError: It is none.
    """
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UserError(f"log and report take numbers: {name}={value!r:.60} is none")
    return number
