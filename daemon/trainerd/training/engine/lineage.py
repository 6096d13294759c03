"""The line of checkpoints that follow from one another, and the manifests of its next ones."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainerd.checkpoint.checkpoint_names import CheckpointName
from trainerd.checkpoint.committed import read_checkpoint
from trainerd.checkpoint.manifest import Manifest
from trainerd.contract.clock import SystemClock
from trainerd.errors import CorruptError
from trainerd.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.checkpoint.store import Checkpoint, CheckpointStore


@dataclass(frozen=True)
class SaveDetails:
    """What a manifest says beyond what `Checkpointer.save` is given. The session fills it in."""

    job: str = ""
    attempt: int = 1
    batch: int = 0
    history_bytes: int = 0
    world_size: int = 1
    is_final: bool = False
    fingerprint: dict[str, Any] = field(default_factory=dict)


class Lineage:
    """One line of checkpoints.

    Attributes:
        head: The checkpoint that the next one follows from, None for the first.
    """

    def __init__(self) -> None:
        self.head: Checkpoint | None = None
        self._id = uuid.uuid4().hex
        self._clock = SystemClock()

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Continue the line of `checkpoint`."""
        self.head = checkpoint
        self._id = checkpoint.manifest.lineage

    def fork(self) -> None:
        """Begin a line of its own, after the same head: what followed it before does not belong to this one."""
        self._id = uuid.uuid4().hex

    def manifest(
        self,
        *,
        step: int,
        epoch: int,
        scores: Mapping[str, float],
        reason: str,
        details: SaveDetails | None = None,
    ) -> Manifest:
        """Return the manifest of the next checkpoint; its files are filled in when it is committed."""
        details = details or SaveDetails()
        return Manifest(
            job=details.job,
            lineage=self._id,
            parent=self.head.name if self.head is not None else None,
            step=step,
            epoch=epoch,
            batch=details.batch,
            reason=reason,
            scores={name: float(score) for name, score in scores.items()},
            world_size=details.world_size,
            attempt=details.attempt,
            fingerprint=details.fingerprint,
            history_bytes=details.history_bytes,
            is_final=details.is_final,
            created_wall_s=self._clock.wall_s(),
            trainerd_version=VERSION,
        )


def was_rolled_back_to(store: CheckpointStore, checkpoint: Checkpoint) -> bool:
    """Tell whether checkpoints of the same line that came after this one were left behind by a rollback."""
    for aside in store.abandoned():
        if CheckpointName.parse(aside.path.name) is None:
            continue  # the second one of that name
        with contextlib.suppress(CorruptError, OSError):
            left = read_checkpoint(aside.path)
            if left.manifest.lineage == checkpoint.manifest.lineage and left.place > checkpoint.place:
                return True
    return False
