"""Compares two finished runs by what is on the disk alone: the final weights and the metric history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.waiting import HarnessError
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.metric_history import History, read_history

if TYPE_CHECKING:
    from trainerd.contract.paths import RunPaths


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        checkpoint: Name of its final checkpoint.
        weights_digest: Of every tensor in it: weights, optimizer, generators.
        tree_digest: Of everything in it that is no tensor.
        history: Its metric history.
    """

    checkpoint: str
    weights_digest: str
    tree_digest: str
    history: History

    @property
    def steps_run_twice(self) -> int:
        """Rows that were lost by an interruption and measured again."""
        return sum("report" not in row for row in self.history.superseded)


@dataclass(frozen=True)
class Verdict:
    """Whether a disturbed run equals an undisturbed one."""

    disturbed: Result
    undisturbed: Result

    @property
    def weights_are_equal(self) -> bool:
        return self.disturbed.weights_digest == self.undisturbed.weights_digest

    @property
    def states_are_equal(self) -> bool:
        return self.disturbed.tree_digest == self.undisturbed.tree_digest

    @property
    def histories_are_equal(self) -> bool:
        one, other = self.disturbed.history, self.undisturbed.history
        return bool(one.rows) and (one.rows, one.reports) == (other.rows, other.reports)

    @property
    def all_is_equal(self) -> bool:
        return self.weights_are_equal and self.states_are_equal and self.histories_are_equal


def read_result(run: RunPaths) -> Result:
    """Read what a finished run left; its final checkpoint is verified first.

    Raises:
        HarnessError: There is no checkpoint that verifies.
    """
    newest = CheckpointStore.of_run(run).newest_verified()
    if newest is None:
        raise HarnessError(f"{run.root} has no valid checkpoint")
    digests = {entry.name: entry.digest for entry in newest.manifest.files}
    return Result(
        checkpoint=newest.name,
        weights_digest=digests["rank-00000.safetensors"],
        tree_digest=digests["rank-00000.json"],
        history=read_history(run.metrics),
    )
