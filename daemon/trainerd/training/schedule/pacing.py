"""When this attempt saves: the cadence asked for, with an interval that is planned anew as measurements come."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Final

from trainerd.contract import records
from trainerd.contract.records import ExitRecord
from trainerd.errors import CorruptError
from trainerd.training.schedule.cadence import LastSave, due_reason, epoch_due_reason
from trainerd.training.schedule.interval import INTERVAL_S_MIN, IntervalPlan, planned_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.contract.paths import RunPaths
    from trainerd.contract.policy import Cadence

_NEWS: Final = 0.2
"""A plan is said again once it differs by so much, as a share."""
_WEIGHT: Final = 0.3
"""Of the newest measurement in the running mean of what a save costs."""


class Pacing:
    """Decides when a save is due, and learns from each.

    Args:
        cadence: What was asked for.
        run: The run folder, in which the former attempts left how long they ran.
        attempt: Number of this one.
        say: Tells the user about a new plan.
    """

    def __init__(self, cadence: Cadence, run: RunPaths, *, attempt: int, say: Callable[[str], None]) -> None:
        self._cadence = cadence
        self._say = say
        self._failures, self._trained_before_s = _former_attempts(run, attempt) if cadence.auto else (0, 0.0)
        self._began_s = time.monotonic()
        self._cost_s: float | None = None
        self._said: IntervalPlan | None = None
        self._last = LastSave(0, self._began_s)
        if cadence.auto:
            self._cadence = dataclasses.replace(cadence, steps=None, seconds=INTERVAL_S_MIN)

    def resumed(self, step: int) -> None:
        """The attempt begins at `step`."""
        self._last = LastSave(step, time.monotonic())

    def due(self, step: int) -> str | None:
        """Return why a save is due at this step boundary, None if it is not."""
        return due_reason(self._cadence, self._last, step=step, now_s=time.monotonic())

    def due_alike(self, step: int) -> str | None:
        """Return why every rank finds a save due at this step boundary: by the step, whatever its clock says."""
        return due_reason(dataclasses.replace(self._cadence, seconds=None), self._last, step=step, now_s=0.0)

    def due_by_clock(self, step: int) -> str | None:
        """Return why this rank's clock finds a save due, None if it does not."""
        cadence = dataclasses.replace(self._cadence, steps=None)
        return due_reason(cadence, self._last, step=step, now_s=time.monotonic())

    def due_at_end(self, epochs_done: int, *, has_score: bool) -> str | None:
        """Return why a save is due at the end of an epoch, None if it is not."""
        return epoch_due_reason(self._cadence, epochs_done=epochs_done, has_score=has_score)

    def saved(self, step: int, *, stall_s: float) -> None:
        """A save at `step` has stopped the loop for `stall_s` seconds; plan the next one."""
        now_s = time.monotonic()
        self._last = LastSave(step, now_s)
        if not self._cadence.auto:
            return
        self._cost_s = stall_s if self._cost_s is None else self._cost_s + _WEIGHT * (stall_s - self._cost_s)
        plan = planned_interval(
            save_cost_s=self._cost_s,
            failures=self._failures,
            trained_s=self._trained_before_s + now_s - self._began_s,
        )
        self._cadence = dataclasses.replace(self._cadence, seconds=plan.interval_s)
        if self._said is None or abs(plan.interval_s / self._said.interval_s - 1) > _NEWS:
            self._said = plan
            self._say(str(plan))


def _former_attempts(run: RunPaths, attempt: int) -> tuple[int, float]:
    """Return how many former attempts ended badly, and how long all of them ran, in seconds.

    One without an exit record ended with the machine, or ran without a supervisor: it counts as a failure whose
    length nobody knows.
    """
    failures, trained_s = 0, 0.0
    for number in range(1, attempt):
        try:
            ended = records.read(run.attempt(number).exit, ExitRecord)
        except (CorruptError, OSError):
            ended = None
        if ended is None:
            failures += 1
            continue
        trained_s += ended.duration_s
        failures += ended.stop_requested_s is None and any(rank.exit_code != 0 for rank in ended.ranks)
    return failures, trained_s
