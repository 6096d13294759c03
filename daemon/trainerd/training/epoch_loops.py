"""The loops of a script over epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.training.data.loop_end import loops_that_ask, was_left_on_purpose
from trainerd.training.engine.supervisor_link import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.training.batch_loops import BatchLoops
    from trainerd.training.engine.run_engine import RunEngine


class EpochLoops:
    """All loops over epochs of one session.

    Args:
        engine: Is told of each epoch that begins and ends.
        batch_loops: The loops within.
    """

    def __init__(self, engine: RunEngine, batch_loops: BatchLoops) -> None:
        self._engine = engine
        self._batch_loops = batch_loops
        self._begun = 0
        self._trained_outside = 0  # 1 if a loop over batches came before the first over epochs
        self._is_open = False
        self._is_raised_from = False

    def train(self, total: int | None, max_steps: int | None) -> Iterator[int]:
        """Yield the numbers of the epochs that are left, beginning with the one that was interrupted."""
        engine, asking = self._engine, loops_that_ask()
        was_begun = engine.is_begun
        engine.begin()
        self.end_raised()
        position = engine.run.state.position
        if self._begun == 0:
            self._trained_outside = int(self._batch_loops.has_begun)
            self._batch_loops.look_around()
        engine.enter_phase(self._begun + self._trained_outside, is_first=not was_begun)
        self._begun += 1
        engine.run.link.epochs = UNKNOWN if total is None else total
        engine.max_steps = max_steps
        if position.over >= self._begun:
            return
        # An epoch in which the last step is done may have work left that was interrupted.
        while (total is None or position.epoch < total) and (
            not engine.is_at_max or engine.run.resume.is_pending
        ):
            engine.begin_epoch()
            self._is_open = True
            try:
                yield position.epoch
            except GeneratorExit:
                self._is_open = False
                if not engine.run.exit.is_leaving:
                    self._leave(is_on_purpose=was_left_on_purpose(asking))
                return
            self._is_open = False
            self._batch_loops.end_broken_loop(is_over=True)
            engine.epoch_done()

    def end_raised(self) -> None:
        """End the loop that an exception has left, if there is one: the script has caught it."""
        if self._is_raised_from:
            self._is_raised_from = False
            self._end_early()

    def end_all(self) -> None:
        """End every loop that is open: the script is done, unless it has stopped for a drain."""
        if self._engine.stops_for_drain:
            return
        self._is_raised_from = self._is_raised_from or self._is_open
        self.end_raised()
        self._batch_loops.end_broken_loop(is_over=True)

    def _leave(self, *, is_on_purpose: bool) -> None:
        if not is_on_purpose:
            self._is_raised_from = True
        elif self._engine.has_told_drain:
            # The script may have left the epoch anywhere: the whole of what follows the last boundary is run
            # again.
            with self._batch_loops.errors_kept():
                self._engine.leave_where_safe()
        else:
            with self._batch_loops.errors_kept():
                self._end_early()

    def _end_early(self) -> None:
        self._batch_loops.end_broken_loop(is_over=True)
        self._engine.epoch_done(over=self._begun)
