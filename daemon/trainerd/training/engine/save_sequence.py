"""What is done, in which order, to make the files of a snapshot the newest checkpoint.

1. The writer writes the files into a staging folder: `begin`, then `CheckpointWriter`.
2. The rows that belong to the checkpoint are waited for, if their numbers are still on a device, and the
   metric history is made durable as far as the manifest says.
3. The staging folder is published under its name, durably: `CheckpointStore.commit`. Of several ranks, rank 0
   does that once all have announced their files.
4. ``last`` points to it, and it is read back, unless the save is urgent.
5. The other ranks are told.
6. The line of checkpoints goes on from it.
7. What the policy does not keep is pruned, unless the save is urgent: it was not read back.
8. The mirror gets it.
9. It is counted, and the user's function is called.

All of it happens in the thread that writes, before anything else may be written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trainerd.training.distributed.joint_save import JointSaves
from trainerd.training.engine.arriving_rows import ArrivingRows
from trainerd.training.engine.silent_history import SilentHistory

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.checkpoint.manifest import Manifest
    from trainerd.checkpoint.staging import Staging
    from trainerd.checkpoint.store import Checkpoint, CheckpointStore
    from trainerd.contract.policy import RetentionPolicy
    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.engine.history import HistoryWriter
    from trainerd.training.engine.lineage import Lineage
    from trainerd.training.writing.destination import Part
    from trainerd.training.writing.mirror import Mirror


@dataclass
class SoloPart:
    """All files of a checkpoint that one process writes."""

    store: CheckpointStore
    staging: Staging

    def commit(self, manifest: Manifest, *, reads_back: bool) -> Checkpoint:
        return self.store.commit(self.staging, manifest, reads_back=reads_back)

    def abandon(self) -> None:
        self.staging.abandon()


class SaveSequence:
    """The destination of a `CheckpointWriter`.

    Args:
        store: Where the checkpoints go.
        lineage: Line that they extend.
        policy: What is kept of them.
        ranks: The ranks that write each checkpoint together, None if this process writes alone.
        history: Metric history that the manifests count on.
        rows: Rows that are not in it yet.
        mirror: Other place that they are copied to.
        on_saved: The user's function for each new checkpoint.

    Attributes:
        saves: How many checkpoints were made.
        longest_save_s: How long the slowest of them took, in seconds; None before the first.
        last_save_s: How long the newest of them took until it was durable, in seconds; 0 before the first.
    """

    def __init__(
        self,
        store: CheckpointStore,
        lineage: Lineage,
        policy: RetentionPolicy,
        *,
        ranks: Ranks | None = None,
        history: HistoryWriter | SilentHistory | None = None,
        rows: ArrivingRows | None = None,
        mirror: Mirror | None = None,
        on_saved: Callable[[Checkpoint], None] | None = None,
    ) -> None:
        self.rank = ranks.rank if ranks is not None else 0
        self.is_joint = ranks is not None
        self.saves = 0
        self.longest_save_s: float | None = None
        self.last_save_s = 0.0
        self._store = store
        self._lineage = lineage
        self._policy = policy
        self._joint_saves = JointSaves(ranks, store) if ranks is not None else None
        self._history = history or SilentHistory()
        self._rows = rows or ArrivingRows(self._history)
        self._mirror = mirror
        self._on_saved = on_saved
        self._began_s = 0.0

    def begin(self, manifest: Manifest) -> Part:
        """Begin the next checkpoint.

        Raises:
            SpaceError: The disk is full or read-only.
            RankLostError: Another rank is gone.
        """
        self._began_s = time.monotonic()
        if self._joint_saves is not None:
            return self._joint_saves.begin(manifest)
        return SoloPart(self._store, self._store.begin(manifest.step))

    def commit(self, part: Part, manifest: Manifest, *, is_urgent: bool) -> Checkpoint:
        """Do all that follows once the files are written.

        Raises:
            NonFiniteLossError: The loss of a step before the boundary has arrived, and is NaN or infinite.
        """
        manifest = replace(manifest, history_bytes=self._rows.reach(manifest.history_bytes))
        self._history.sync()
        checkpoint = part.commit(manifest, reads_back=not is_urgent)
        self._lineage.extend(checkpoint)
        if self.rank == 0:
            removed = [] if is_urgent else self._prune()
            if self._mirror is not None:
                self._mirror.warn()
                self._mirror.take(checkpoint, removed=removed)
        self.saves += 1
        self.last_save_s = time.monotonic() - self._began_s
        self.longest_save_s = max(self.longest_save_s or 0.0, self.last_save_s)
        if self._on_saved is not None:
            self._on_saved(checkpoint)
        return checkpoint

    def prune_after_resume(self) -> None:
        """Prune what earlier attempts did not come to.

        An urgent save prunes nothing, nor does a process killed after a commit.

        Otherwise a run that is drained again and again before its first periodic save would grow with every
        attempt.
        """
        checkpoint = self._lineage.resumed_from
        if self.rank != 0 or checkpoint is None:
            return
        removed = self._prune()
        if self._mirror is not None and removed:
            self._mirror.take(checkpoint, removed=removed)

    def _prune(self) -> list[str]:
        """Prune as the policy says; return the names of what went."""
        plan = self._store.prune(self._policy, protected=self._lineage.protected(), in_background=True)
        return [decision.name for decision in plan.prune]
