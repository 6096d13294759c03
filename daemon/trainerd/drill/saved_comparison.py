"""Compares what the Checkpointers of two runs have saved: the whole state at common steps, and the scores."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from trainerd.drill.drilled_run import checkpoints_by_boundary
from trainerd.drill.run_comparison import Compared, RunDifference, RunTrace, compare_runs, differing_names
from trainerd.drill.state_comparison import checkpoint_difference
from trainerd.training.engine.row_comparison import Patterns

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.checkpoint.committed import Checkpoint
    from trainerd.drill.drilled_run import DrilledRun
    from trainerd.drill.run_comparison import Boundary


def compare_saved(
    reference: DrilledRun,
    other: DrilledRun,
    *,
    uncompared: Patterns = Patterns(),  # noqa: B008 - it is frozen
) -> Compared:
    """Compare two runs folder by folder.

    Saves that only one of them made are left out, such as that of a handler of SIGTERM; the last ones must be
    of one step.
    """
    then, now = ({each.directory.name: each for each in run.checkpointers()} for run in (reference, other))
    parts = [
        _compare(
            checkpoints_by_boundary(then[name]),
            checkpoints_by_boundary(now[name]),
            uncompared,
            (reference.folder, other.folder),
        )
        for name in then
        if name in now
    ]
    differences = [each for part in parts for each in part.differences]
    differences += [
        RunDifference("end", None, name, "only one of the runs saves there")
        for name in then.keys() ^ now.keys()
    ]
    return Compared(
        values=sum(each.values for each in parts),
        states=sum(each.states for each in parts),
        differences=tuple(differences),
    )


def differing_scores(reference: DrilledRun, other: DrilledRun) -> tuple[str, ...]:
    """Return the names of the scores that differ somewhere between two runs."""
    names: dict[str, None] = {}
    for one, two in zip(reference.checkpointers(), other.checkpointers(), strict=False):
        then, now = checkpoints_by_boundary(one), checkpoints_by_boundary(two)
        common = [each for each in then if each in now]
        names |= dict.fromkeys(differing_names(_trace(then, common), _trace(now, common)))
    return tuple(names)


def _compare(
    then: dict[Boundary, Checkpoint],
    now: dict[Boundary, Checkpoint],
    uncompared: Patterns,
    folders: tuple[Path, Path],
) -> Compared:
    def difference(boundary: Boundary) -> tuple[str, str] | None:
        return checkpoint_difference(then[boundary], now[boundary], uncompared=uncompared, folders=folders)

    common = [each for each in then if each in now]
    compared = compare_runs(_trace(then, common), _trace(now, common), difference, uncompared=uncompared)
    values = sum(len(then[each].manifest.scores) for each in common)
    return dataclasses.replace(compared, values=values)


def _trace(checkpoints: dict[Boundary, Checkpoint], common: list[Boundary]) -> RunTrace:
    reports: list[dict[str, Any]] = [
        {"step": each[0], **checkpoints[each].manifest.scores} for each in common
    ]
    return RunTrace((), tuple(reports), tuple(checkpoints))
