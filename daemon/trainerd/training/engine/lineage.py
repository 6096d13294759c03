"""Line of checkpoints that follow from one another: what is newest, what comes next, what is never pruned."""

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
    """What the manifest of a run's checkpoint says beyond what a `Checkpointer` knows."""

    job: str = ""
    attempt: int = 1
    batch: int = 0
    history_bytes: int = 0
    world_size: int = 1
    is_final: bool = False
    fingerprint: dict[str, Any] = field(default_factory=dict)


class Lineage:
    """One line of checkpoints in a store, and where this process is on it.

    Attributes:
        resumed_from: Checkpoint that this process went on from, None if from none.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._clock = SystemClock()
        self._id = uuid.uuid4().hex
        self._parent: Checkpoint | None = None  # of the next one
        self._newest: Checkpoint | None = None
        self._has_looked = False
        self.resumed_from: Checkpoint | None = None

    @property
    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is durable, None if there is none."""
        if self._newest is None and not self._has_looked:
            present = self._store.checkpoints()
            self.found(present[-1] if present else None)
        return self._newest

    def found(self, newest: Checkpoint | None) -> None:
        """Note which checkpoint is the newest one in the store."""
        self._newest, self._has_looked = newest, True

    def extend(self, checkpoint: Checkpoint) -> None:
        """Take in a checkpoint that was just made: the next one follows from it."""
        self._newest = self._parent = checkpoint

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Continue the line of `checkpoint`."""
        self.resumed_from = self._parent = checkpoint
        self._id = checkpoint.manifest.lineage

    def adopt(self, checkpoint: Checkpoint) -> None:
        """Go on from the newest checkpoint.

        On a line of its own if later ones were left behind by a rollback.
        """
        self._newest = checkpoint
        self.go_on_from(checkpoint)
        if _was_rolled_back_to(self._store, checkpoint):
            self._fork()

    def go_back_before(self, step: int) -> None:
        """Set aside what is later than `step`, for a save at `step` does not follow from it.

        Needs the lock.
        """
        newest = self.newest
        if newest is None or newest.step <= step:
            return
        before = [checkpoint for checkpoint in self._store.checkpoints() if checkpoint.step <= step]
        self._newest = before[-1] if before else None
        self._store.set_aside_after(self._newest, f"step {step} was saved, which does not follow from it")
        self._fork()

    def restart(self) -> None:
        """Begin a line that follows from nothing."""
        self._newest = self._parent = self.resumed_from = None
        self._fork()

    def _fork(self) -> None:
        """Begin a line of its own after the same parent.

        What followed it before does not belong to this one.
        """
        self._id = uuid.uuid4().hex

    def protected(self) -> dict[str, str]:
        """Return the names of the checkpoints that are never pruned, with the reasons."""
        newest = {self._newest.name: "newest"} if self._newest is not None else {}
        return newest | ({self.resumed_from.name: "resumed from"} if self.resumed_from is not None else {})

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
            parent=self._parent.name if self._parent is not None else None,
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


def _was_rolled_back_to(store: CheckpointStore, checkpoint: Checkpoint) -> bool:
    """Tell whether checkpoints of the same line that came after this one were left behind by a rollback."""
    for aside in store.abandoned():
        if CheckpointName.parse(aside.path.name) is None:
            continue  # the second one of that name
        with contextlib.suppress(CorruptError, OSError):
            left = read_checkpoint(aside.path)
            if left.manifest.lineage == checkpoint.manifest.lineage and left.place > checkpoint.place:
                return True
    return False
