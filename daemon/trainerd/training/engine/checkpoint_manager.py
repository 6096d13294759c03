"""The checkpoints of one folder: makes them, finds the newest sound one, and holds the folder's lock.

`Checkpointer` and the engine of a run stand on it. A save takes four calls:

    snapshot = take_snapshot(objects)                           at a boundary
    manager.writer.supersede()                                  the save before it is durable, or has failed
    manager.make_room(snapshot.predicted_bytes)
    manager.writer.write_in_background(snapshot, manager.lineage.manifest(...))

What happens to the files then is written down in `save_sequence`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Self

from trainerd.training.engine.lineage import Lineage
from trainerd.training.engine.save_sequence import SaveSequence
from trainerd.training.state.rank_files import read_verified
from trainerd.training.writing.mirror import CLOSE_LIMIT_S, Mirror
from trainerd.training.writing.writer import CheckpointWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.checkpoint.store import Checkpoint, CheckpointStore
    from trainerd.contract.policy import RetentionPolicy
    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.engine.arriving_rows import ArrivingRows
    from trainerd.training.engine.history import HistoryWriter
    from trainerd.training.engine.memory_tier import MemoryTier
    from trainerd.training.engine.silent_history import SilentHistory
    from trainerd.training.state.restore import StateTree

COMMITTING_RANK: Final = 0
REMOVAL_LIMIT_S: Final = 60.0
"""How long `close` waits for the deletion of what was pruned, in seconds; the next start goes on with the
rest."""


class CheckpointManager:
    """Makes and finds the checkpoints of one folder.

    Args:
        store: The folder.
        policy: What is kept.
        rank: Rank of this process. Rank 0 holds the lock, commits and prunes.
        ranks: The ranks that write each checkpoint together, None if rank 0 writes alone.
        history: Metric history that the manifests count on.
        rows: Rows that are not in it yet.
        mirror: Other place that checkpoints are copied to, and brought back from if the folder is empty.
        memory: Copies in memory, the newest of which may be brought back.
        on_saved: The user's function for each new checkpoint.

    Attributes:
        mirror_limit_s: How long `close` waits for the mirror, in seconds.
        is_committer: Whether this process holds the lock and commits.
        memory: Copies in memory, None if there can be none.
        lineage: Line of checkpoints of this process.
        sequence: What is done with each new checkpoint.
        writer: Writes snapshots.
    """

    def __init__(
        self,
        store: CheckpointStore,
        policy: RetentionPolicy,
        *,
        rank: int,
        ranks: Ranks | None = None,
        history: HistoryWriter | SilentHistory | None = None,
        rows: ArrivingRows | None = None,
        mirror: Mirror | None = None,
        memory: MemoryTier | None = None,
        on_saved: Callable[[Checkpoint], None] | None = None,
    ) -> None:
        self.store = store
        self.is_committer = rank == COMMITTING_RANK
        self.lineage = Lineage(store)
        self.sequence = SaveSequence(
            store,
            self.lineage,
            policy,
            ranks=ranks,
            history=history,
            rows=rows,
            mirror=mirror,
            on_saved=on_saved,
        )
        self.writer = CheckpointWriter(self.sequence)
        self._policy = policy
        self._mirror = mirror
        self.memory = memory
        self._history = history
        self.mirror_limit_s = CLOSE_LIMIT_S
        self._lock = contextlib.ExitStack()
        self._is_open = False

    def open(self) -> Self:
        """Take the writers' lock, fence every attempt before this one, and sweep what a crash left.

        Only if this process commits and has not done so.

        Raises:
            LockedError: Another process writes here.
        """
        if not self._is_open and self.is_committer:
            self._lock.enter_context(self.store.lock())
            try:
                self.store.take_over()
                self.store.sweep()
            except BaseException:
                self._lock.close()
                raise
            self._is_open = True
        return self

    def close(self) -> None:
        """Wait for the write in flight, and for its copy in the mirror, and let go of the lock.

        Raises:
            SpaceError: The disk was full for the write in flight.
            OSError: The write in flight failed.
        """
        try:
            self.writer.wait()
            if self._mirror is not None:
                self._mirror.wait(limit_s=self.mirror_limit_s)
                self._mirror.warn()
        finally:
            self.writer.close()
            self.store.wait_for_removals(limit_s=REMOVAL_LIMIT_S)
            self._lock.close()
            self._is_open = False

    def make_room(self, needed_bytes: int, *, is_emergency: bool = False) -> None:
        """See to it that a save of that size will fit; see `CheckpointStore.make_room`.

        Raises:
            SpaceError: It would not fit. Nothing was begun.
        """
        if self.is_committer:
            self.open()
            self.store.make_room(
                needed_bytes, self._policy, protected=self.lineage.protected(), is_emergency=is_emergency
            )

    def find(self) -> tuple[Checkpoint, StateTree] | None:
        """Return the newest checkpoint that verifies, and what is in it.

        Damaged ones are moved to quarantine.

        Where there is none, the mirror is asked. A process that does not commit moves nothing.
        """
        if not self.is_committer:
            sound = self.store.newest_sound()
            return (sound, _read(sound)) if sound is not None else None
        self.open()
        self.writer.wait()
        if self.memory is not None:
            in_memory = self.memory.find(_read, self.make_room)
            if in_memory is not None and self._mirror is None:
                self.lineage.found(in_memory[0])
                return in_memory
            if in_memory is not None:  # what the mirror has is compared with what is on disk
                self.memory.write_back()
        found = self.store.newest_read(_read)
        if self._mirror is not None:
            pulled = self._mirror.pull_newer(self.store, found[0]) if found else self._mirror.pull(self.store)
            found = (pulled, _read(pulled)) if pulled is not None else found
            if pulled is not None and self._history is not None:
                self._bring_back_history(self._mirror, pulled)
        self.lineage.found(found[0] if found else None)
        return found

    def settle(self) -> None:
        """Complete the resume from what `find` returned: bring it to disk if it is not there, and prune.

        In the background, as a save; what fails there is raised by the next call that meets it. Of several
        ranks, rank 0 does it, and the others wait for it as for a save.
        """
        memory = self.memory
        if memory is None or not memory.is_write_back_due:
            self.sequence.prune_after_resume()
            return

        def work() -> Checkpoint:
            checkpoint = memory.write_back()
            self.sequence.prune_after_resume()
            return checkpoint

        self.writer.run_in_background(work)

    def is_from_memory(self, checkpoint: Checkpoint | None) -> bool:
        """Tell whether a checkpoint was only in memory when this attempt began."""
        if checkpoint is None or self.memory is None:
            return False
        return checkpoint.name == self.memory.returned

    def wait_for_mirror(self, checkpoint: Checkpoint, *, limit_s: float) -> bool | None:
        """Wait until a checkpoint is in the mirror; return whether it is, None without a mirror.

        `close` does not wait again.
        """
        if self._mirror is None:
            return None
        self.mirror_limit_s = 0.0
        return self._mirror.ensure(checkpoint, limit_s=limit_s)

    def _bring_back_history(self, mirror: Mirror, pulled: Checkpoint) -> None:
        """Complete the metric history that a checkpoint counts on. What is missing the resume tells."""
        assert self._history is not None
        if self._history.position_bytes < pulled.manifest.history_bytes:
            content = mirror.history_of(pulled)
            if content is not None:
                self._history.replace(content)

    def reset(self, reason: str) -> None:
        """Set everything aside and begin a line that follows from nothing."""
        if self.is_committer:
            self.open()
            self.writer.wait()
            self.store.set_aside_after(None, reason)
        self.lineage.restart()


def _read(checkpoint: Checkpoint) -> StateTree:
    return read_verified(checkpoint, 0)
