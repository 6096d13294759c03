"""Checkpoints of a run as the page and the metrics show them. Blocks; reads manifests and no data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.committed import Checkpoint, read_checkpoint
from trainerd.checkpoint.listing import checkpoint_folders
from trainerd.checkpoint.pins import pins
from trainerd.contract.safe_text import safe_line
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from trainerd.contract.paths import RunPaths

ROWS_MAX: Final = 200
"""Newest checkpoints of which the manifests are read."""

SCORES_MAX: Final = 8


@dataclass(frozen=True)
class CheckpointRow:
    """A checkpoint as shown.

    Attributes:
        name: Its name.
        step: Its step.
        epoch: Epochs done.
        created_wall_s: When it was made, seconds since the epoch.
        size_bytes: How large it is; None if it cannot be read.
        reason: Why it was made, or why it cannot be read.
        scores: What it was reported to score.
        pin: Note of its pin, None without one.
    """

    name: str
    step: int
    epoch: int = 0
    created_wall_s: float = 0.0
    size_bytes: int | None = None
    reason: str = ""
    scores: tuple[tuple[str, float], ...] = ()
    pin: str | None = None


def checkpoint_rows(run: RunPaths) -> tuple[CheckpointRow, ...]:
    """Return the checkpoints of a run, newest first.

    Raises:
        OSError: The folder could not be read.
        CorruptError: The note of a fork cannot be read.
    """
    pinned = pins(run.checkpoints)
    rows = []
    for folder in reversed(checkpoint_folders(run.checkpoints)[-ROWS_MAX:]):
        try:
            row = _row(read_checkpoint(folder))
        except FileNotFoundError:
            continue  # pruned while we looked
        except (TrainerdError, OSError) as error:
            row = CheckpointRow(folder.name, -1, reason=safe_line(str(error), characters_max=300))
        note = pinned.get(folder.name)
        rows.append(row if note is None else _pinned(row, note.note))
    return tuple(rows)


def _pinned(row: CheckpointRow, note: str) -> CheckpointRow:
    from dataclasses import replace

    return replace(row, pin=safe_line(note, characters_max=300))


def _row(checkpoint: Checkpoint) -> CheckpointRow:
    manifest = checkpoint.manifest
    scores = sorted(manifest.scores.items())[:SCORES_MAX]
    return CheckpointRow(
        checkpoint.name,
        checkpoint.step,
        manifest.epoch,
        manifest.created_wall_s,
        sum(entry.bytes for entry in manifest.files),
        safe_line(manifest.reason, characters_max=100),
        tuple((safe_line(name, characters_max=100), value) for name, value in scores),
    )
