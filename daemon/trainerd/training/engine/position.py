"""Where a run is: the step boundary that it last crossed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

_DEFAULTS: Final = {
    "world_size": 1,
    "resharded_at": 0,
    "resharded_after": 0,
    "late": False,
    "series": 0,
    "ended_at": 0,
    "phase": 0,
    "over": 0,
    "entered": False,
}
"""Left out of a checkpoint where they hold."""
_SAVED_NAMES: Final = {"resharded_at": "redealt_at", "resharded_after": "redealt_after"}
"""What the checkpoint format calls two of the attributes."""


@dataclass
class Position:
    """A step boundary.

    Attributes:
        step: Steps finished, over all attempts.
        epoch: Epoch in progress, from 0.
        loop: Which training loop of the epoch is next or in progress, from 0: most epochs have one.
        batch: Batches of that loop that are finished.
        epoch_start_step: `step` when the epoch began.
        world_size: How many replicas the batches of that loop are sharded to: ranks, or groups of ranks that
            get the same batches. A batch is one of each replica then.
        resharded_at: `batch` when they were last sharded to another number of replicas within that loop.
        resharded_after: How many batches all replicas together had finished of it then.
        late: Whether the state is that of the beginning of loop `loop`, not of the end of the loop before:
            that one was found to be over only here, after the code between the two.
        series: First of the loops up to this one that an explicit ``next`` has drawn from the same loader,
            each but this one until it was exhausted; `loop` if there is no other.
        ended_at: Batches of the loop that ended last, if it ended by itself.
        phase: How many loops over epochs, or times of training outside of any, came before the present one.
        over: How many of the script's loops over epochs are over; counts those up to one that was left early.
        entered: Whether the loop over epochs has begun and no step or epoch of it is done: the script has run
            what comes before it, and what it has logged there is in no row yet.
    """

    step: int = 0
    epoch: int = 0
    loop: int = 0
    batch: int = 0
    epoch_start_step: int = 0
    world_size: int = 1
    resharded_at: int = 0
    resharded_after: int = 0
    late: bool = False
    series: int = 0
    ended_at: int = 0
    phase: int = 0
    over: int = 0
    entered: bool = False

    def end_loop(self, *, ended_at: int = 0, is_in_series: bool = False, is_late: bool = False) -> None:
        """The training loop in progress has ended, by itself or by a ``break``.

        Args:
            ended_at: How many batches it had, if it ended by itself.
            is_in_series: Whether the next one may be of the same series.
            is_late: Whether that was found out only after the code that follows the loop.
        """
        self.loop += 1
        self.batch = self.resharded_at = self.resharded_after = 0
        self.late, self.ended_at = is_late, ended_at
        if not is_in_series:
            self.series = self.loop

    def end_epoch(self) -> None:
        """The epoch in progress has ended. One without a training loop of ours counts as one step."""
        if self.step == self.epoch_start_step:
            self.step += 1
        self.epoch += 1
        self.loop = self.batch = self.resharded_at = self.resharded_after = 0
        self.late, self.series, self.ended_at = False, 0, 0
        self.entered = False
        self.epoch_start_step = self.step

    def shard_over(self, world_size: int) -> None:
        """What is left of the loop in progress is sharded to `world_size` replicas from here on."""
        if world_size == self.world_size:
            return
        self.resharded_after += (self.batch - self.resharded_at) * self.world_size
        self.resharded_at = self.batch
        self.world_size = world_size

    def key(self) -> tuple[int, ...]:
        """Return what tells one boundary from another."""
        return (self.step, self.epoch, self.loop, self.batch)

    def is_inside_epoch(self) -> bool:
        """Return whether some of the epoch's training is done already."""
        return self.loop > 0 or self.batch > 0

    def is_at_start(self) -> bool:
        """Return whether nothing that a resumed attempt would run again was run yet."""
        return not (self.entered or self.phase or self.over or any(self.key()))

    def state_dict(self) -> dict[str, int | bool]:
        state = asdict(self)
        return {
            _SAVED_NAMES.get(name, name): value
            for name, value in state.items()
            if name not in _DEFAULTS or value != _DEFAULTS[name]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        names = {saved: name for name, saved in _SAVED_NAMES.items()}
        self.__init__(**{names.get(name, name): value for name, value in state.items()})  # type: ignore[misc]  # in place: the loops in progress hold this very object

    def copied(self) -> Position:
        return replace(self)
