"""When the next checkpoint is due. Pure: it is told the step and the time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainerd.contract.policy import Cadence


@dataclass(frozen=True)
class LastSave:
    """Where the newest checkpoint of this attempt stands, or where the attempt began."""

    step: int
    monotonic_s: float


def due_reason(cadence: Cadence, last: LastSave, *, step: int, now_s: float) -> str | None:
    """Return why a checkpoint is due at this step boundary, None if it is not.

    Args:
        cadence: What was asked for.
        last: The newest checkpoint.
        step: Steps finished.
        now_s: Monotonic time.
    """
    if step <= last.step:
        return None
    if cadence.steps is not None and step // cadence.steps > last.step // cadence.steps:
        return f"every {cadence.steps} steps"
    if cadence.seconds is not None and now_s - last.monotonic_s >= cadence.seconds:
        return f"every {cadence.seconds:g} seconds"
    return None


def epoch_due_reason(cadence: Cadence, *, epochs_done: int, has_score: bool) -> str | None:
    """Return why a checkpoint is due at the end of an epoch, None if it is not.

    Args:
        cadence: What was asked for.
        epochs_done: Epochs finished, this one included.
        has_score: Whether a score was reported by which checkpoints are kept.
    """
    if has_score:
        return "scored"
    if cadence.epochs is not None and epochs_done % cadence.epochs == 0:
        return "end of epoch" if cadence.epochs == 1 else f"every {cadence.epochs} epochs"
    return None


def moved(last: LastSave, *, step: int, now_s: float) -> LastSave:
    """Return `last` after a checkpoint at `step`."""
    return replace(last, step=step, monotonic_s=now_s)
