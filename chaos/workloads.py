"""What the harness can train: the reference trainer in several sizes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Workload:
    """One size of the reference trainer.

    Attributes:
        name: As the command line calls it.
        epochs: How many.
        batches: In an epoch.
        batch_size: Samples in a batch; the last one is shorter.
        step_ms: Least duration of a step, in milliseconds.
        every_steps: Steps between two checkpoints.
        keep_last: How many checkpoints are kept.
        workers: Data-loading processes of each rank.
        ranks: How many.
    """

    name: str
    epochs: int = 3
    batches: int = 10
    batch_size: int = 8
    step_ms: float = 30.0
    every_steps: int = 4
    keep_last: int = 3
    workers: int = 0
    ranks: int = 1

    @property
    def samples(self) -> int:
        """How many there are: the last batch of an epoch is a short one."""
        return (self.batches - 1) * self.batch_size + max(1, self.batch_size - 3)

    @property
    def steps(self) -> int:
        """Of each rank: the ranks share the batches of an epoch."""
        return self.epochs * self.batches // self.ranks

    def arguments(self, seed: int, *, is_undisturbed: bool = False) -> list[str]:
        """Return the arguments of `chaos.workload`. The undisturbed run wastes no time between steps."""
        return [
            *("--workload", self.name, "--epochs", str(self.epochs), "--batches", str(self.batches)),
            *("--batch-size", str(self.batch_size), "--workers", str(0 if is_undisturbed else self.workers)),
            *("--step-ms", str(0 if is_undisturbed else self.step_ms), "--seed", str(seed)),
        ]


SCENARIO_SIZES: Final = {
    "tiny": Workload("tiny"),
    "mnist": Workload("mnist", epochs=2, batches=50, batch_size=32, every_steps=20, step_ms=0),
    "ddp": Workload("ddp", ranks=2, batches=20, batch_size=4),
}
"""Seconds long: for scenarios."""

SOAK_SIZES: Final = {
    "tiny": dataclasses.replace(
        SCENARIO_SIZES["tiny"], epochs=15, batches=60, step_ms=100, every_steps=20, workers=1
    ),
    "mnist": dataclasses.replace(SCENARIO_SIZES["mnist"], epochs=10, workers=1),
    "ddp": dataclasses.replace(SCENARIO_SIZES["ddp"], epochs=15, batches=120, step_ms=100, every_steps=20),
}
"""Minutes long: for the soak."""
