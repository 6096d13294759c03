"""When this attempt saves: the cadence asked for, its interval replanned as measurements come."""

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
    from collections.abc import Callable, Collection

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
        is_alone: Whether this is the only rank. Several must all find a save due at the same boundary.
        ranking: Names of the scores by which checkpoints are kept.
        say: Tells the user about a new plan.
    """

    def __init__(
        self,
        cadence: Cadence,
        run: RunPaths,
        *,
        attempt: int,
        is_alone: bool,
        ranking: frozenset[str],
        say: Callable[[str], None],
    ) -> None:
        self._cadence = cadence
        self._is_alone = is_alone
        self._ranking = ranking
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

    def after_step(
        self, step: int, *, ends_epoch: int | None, is_asked: bool, has_failed: bool
    ) -> str | None:
        """Return why the boundary after a step is to be saved, None if it is not.

        The last batch of an epoch whose end will be saved waits for it: the same step, and with its scores. A
        save that has failed is met at once, by the next one: an interval later, two intervals of work would
        be at stake.

        Args:
            step: Steps finished.
            ends_epoch: How many epochs are finished soon, if this was the last batch of one.
            is_asked: Whether a save was asked for.
            has_failed: Whether the save before has failed.
        """
        if self._is_alone and has_failed:
            return "the save before failed"
        if ends_epoch is not None and epoch_due_reason(
            self._cadence, epochs_done=ends_epoch, has_score=False
        ):
            return None
        return self._due(step, is_asked=is_asked)

    def to_request(self, step: int, *, is_asked: bool, has_clock: bool) -> str | None:
        """Return why this rank, of several, would have a boundary saved of which the others cannot know.

        Args:
            step: Steps finished.
            is_asked: Whether a save was asked for.
            has_clock: Whether this is the rank whose clock counts.
        """
        if self._is_alone:
            return None
        if is_asked:
            return "asked"
        cadence = dataclasses.replace(self._cadence, steps=None)
        return due_reason(cadence, self._last, step=step, now_s=time.monotonic()) if has_clock else None

    def after_epoch(
        self, step: int, *, epochs_done: int, is_asked: bool, scores: Collection[str]
    ) -> str | None:
        """Return why the end of an epoch is to be saved, None if it is not.

        Args:
            step: Steps finished.
            epochs_done: Epochs finished.
            is_asked: Whether a save was asked for.
            scores: Names of the scores that were reported to this rank.
        """
        # A score may be known to one rank alone; that there will be one is known to all.
        has_score = not self._ranking.isdisjoint(scores) if self._is_alone else bool(self._ranking)
        return epoch_due_reason(self._cadence, epochs_done=epochs_done, has_score=has_score) or self._due(
            step, is_asked=is_asked
        )

    def _due(self, step: int, *, is_asked: bool) -> str | None:
        """Return why a save is due; of several ranks, by the step alone: that is the same for all."""
        if not self._is_alone:
            return due_reason(
                dataclasses.replace(self._cadence, seconds=None), self._last, step=step, now_s=0.0
            )
        return (
            "asked" if is_asked else due_reason(self._cadence, self._last, step=step, now_s=time.monotonic())
        )

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

    One without an exit record ended with the machine, or ran without a supervisor: it counts as a failure
    of unknown length.
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
