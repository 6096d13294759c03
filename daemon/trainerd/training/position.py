"""Where a run is: the step boundary that it last crossed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass
class Position:
    """A step boundary.

    Attributes:
        step: Steps finished, over all attempts.
        epoch: Epoch in progress, from 0.
        loop: Which training loop of the epoch is next or in progress, from 0: most epochs have one.
        batch: Batches of that loop that are finished.
        epoch_start_step: `step` when the epoch began.
    """

    step: int = 0
    epoch: int = 0
    loop: int = 0
    batch: int = 0
    epoch_start_step: int = 0

    def end_loop(self) -> None:
        """The training loop in progress has ended, by itself or by a ``break``."""
        self.loop += 1
        self.batch = 0

    def end_epoch(self) -> None:
        """The epoch in progress has ended. One without a training loop of ours counts as one step."""
        if self.step == self.epoch_start_step:
            self.step += 1
        self.epoch += 1
        self.loop = self.batch = 0
        self.epoch_start_step = self.step

    def key(self) -> tuple[int, ...]:
        """Return what tells one boundary from another."""
        return (self.step, self.epoch, self.loop, self.batch)

    def is_inside_epoch(self) -> bool:
        """Return whether some of the epoch's training is done already."""
        return self.loop > 0 or self.batch > 0

    def state_dict(self) -> dict[str, int]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # in place: the loops in progress hold this very object

    def copied(self) -> Position:
        return replace(self)
