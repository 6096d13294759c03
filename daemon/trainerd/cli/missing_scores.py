"""The metrics of `keep_best` that no checkpoint of a run has: what is shown of them, and in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.checkpoint.store import Checkpoint
    from trainerd.contract.paths import RunPaths
    from trainerd.contract.policy import RetentionPolicy

CHECKPOINTS_MIN: Final = 2
"""With how many checkpoints a score that is still missing is shown; the final one is enough."""


def missing_scores(run: RunPaths) -> tuple[str, ...]:
    """Return the metrics of `keep_best` of which no checkpoint has a finite score.

    Empty if the run has too few checkpoints to tell, or they cannot be read.
    """
    if not run.retention.is_file():
        return ()
    from trainerd.checkpoint.store import CheckpointStore
    from trainerd.contract.retention_file import read_retention

    try:
        policy = read_retention(run)
        checkpoints = CheckpointStore.of_run(run).checkpoints() if policy.keep_best else ()
    except (OSError, ValueError, TrainerdError):
        return ()
    return missing_from(checkpoints, policy)


def missing_from(checkpoints: Sequence[Checkpoint], policy: RetentionPolicy) -> tuple[str, ...]:
    """Return the metrics of which none of these has a finite score; empty if they are too few to tell."""
    from trainerd.checkpoint.retention import unscored

    if len(checkpoints) < CHECKPOINTS_MIN and not any(each.manifest.is_final for each in checkpoints):
        return ()
    return unscored(checkpoints, policy)


def missing_scores_line(metrics: Sequence[str]) -> str | None:
    """Say that no checkpoint is kept by these metrics, None if there are none."""
    if not metrics:
        return None
    calls = ", ".join(f"session.report({name}=…)" for name in metrics)
    return f"no checkpoint has a score {', '.join(metrics)}: the script has to call {calls}"
