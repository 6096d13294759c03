"""The saves of one run: which boundary is saved or copied aside, and when.

Invariants:
    A boundary is saved at most once, unless it was scored in the meantime or the run ends there.
    A boundary that is saved or staged is not captured again for a drain: the script may have gone on since.
    What the deadline's thread may touch is touched under the lock: what is staged, and the writer.
    The position, the tracked objects and the random generators of a checkpoint are of one moment.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.failpoints import declare
from trainerd.contract.save_reasons import FLUSHED
from trainerd.training.engine.lineage import SaveDetails
from trainerd.training.schedule.staging_budget import StagingBudget
from trainerd.training.writing.gc_pause import no_collection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.checkpoint.manifest import Manifest
    from trainerd.checkpoint.store import Checkpoint
    from trainerd.training.engine.arriving_rows import ArrivingRows
    from trainerd.training.engine.checkpoint_manager import CheckpointManager
    from trainerd.training.engine.measurements import LateScore
    from trainerd.training.engine.memory_tier import MemoryTier
    from trainerd.training.engine.run_resume import RunResume
    from trainerd.training.engine.run_state import RunState
    from trainerd.training.schedule.pacing import Pacing
    from trainerd.training.settings import Settings
    from trainerd.training.state.snapshot import Snapshot
    from trainerd.training.writing.writer import StagedSnapshot

AGREED = declare("memory.agreed", "the copy before this one: no rank has begun this one yet, or some have")

RESERVE_BYTES_MAX: Final = 256 << 20


@dataclass(frozen=True)
class StagedBoundary:
    """A boundary that is copied aside and not written: its state, its manifest and its key."""

    snapshot: StagedSnapshot
    manifest: Manifest
    key: tuple[int, ...]


class RunSaves:
    """Saves the boundaries of one run.

    Args:
        settings: Settings of the session.
        state: State of the run.
        checkpoints: Makes the checkpoints.
        rows: Rows of the metric history, as far as they are not in it yet.
        resume: How far the resume has come.
        pacing: Learns what a save costs.
        memory: Copies in memory.
        is_alone: Whether this is the only rank.

    Attributes:
        scores: Scores of the boundary crossed last.
        is_asked: Whether the script or the supervisor asked for a save that was not made yet.
    """

    def __init__(
        self,
        settings: Settings,
        state: RunState,
        checkpoints: CheckpointManager,
        rows: ArrivingRows,
        *,
        resume: RunResume,
        pacing: Pacing,
        memory: MemoryTier,
        is_alone: bool,
    ) -> None:
        self.scores: dict[str, float | LateScore] = {}
        self.is_asked = False
        self._settings = settings
        self._state = state
        self._checkpoints = checkpoints
        self._writer = checkpoints.writer
        self._rows = rows
        self._resume = resume
        self._pacing = pacing
        self._memory = memory
        self._is_alone = is_alone
        self._lock = threading.RLock()
        self._saved_key: tuple[int, ...] | None = None
        self._copied_key: tuple[int, ...] | None = None
        self._staged: StagedBoundary | None = None
        self._staging_budget = StagingBudget(is_alone=is_alone)
        self._has_reserve = False
        self._is_prepared = False

    # ------------------------------------------------------------------ periodic saves

    def save(self, reason: str, *, is_final: bool = False) -> None:
        """Save this boundary in the background, unless that was done already.

        Raises what the save before raised.

        Raises:
            UnsupportedValueError: Some state has no exact form on disk.
            SpaceError: The disk is full.
        """
        with self._lock, no_collection():
            is_scored_since = bool(self.scores) and self._is_alone  # known to one rank, it decides for none
            if self._is_saved() and not (is_scored_since or is_final):
                return
            self._writer.supersede()
            self._staged = None  # its memory is used now, for what is newer
            began_s = time.monotonic()
            snapshot = self._state.snapshot()
            self._keep_reserve(snapshot)
            self._checkpoints.make_room(self._predicted_bytes(snapshot))
            self._writer.write_in_background(snapshot, self._manifest(reason, is_final=is_final))
            self._mark_saved()
            self._staging_budget.spent()
            self._pacing.saved(self._state.position.step, stall_s=time.monotonic() - began_s)

    def save_if_free(self, reason: str) -> None:
        """Save this boundary if no save is in flight; otherwise leave it to the next boundary.

        Several ranks wait for the save in flight: they would not all skip the same ones.
        """
        if not (self._is_alone and self._writer.is_busy):
            self.save(reason)

    def save_here(self, reason: str) -> None:
        """Save the boundary crossed last, also from the script's own code after it."""
        with self._lock:
            if not self._is_staged_here():
                self.save(reason)
                return
            self.flush()
            self._mark_saved()

    def finish(self) -> Checkpoint:
        """Save the state as it is now as the final one and return it once it is durable.

        Also if the boundary is saved: the script may have done something since.
        """
        self.save("final", is_final=True)
        if self._writer.supersede():
            self.save("final", is_final=True)
        newest = self.wait()
        assert newest is not None
        return newest

    def wait(self) -> Checkpoint | None:
        """Wait until every save is durable; return the newest checkpoint.

        Raises what the save in flight raised.
        """
        self._writer.wait()
        return self.newest

    @property
    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is durable."""
        return self._checkpoints.lineage.newest

    def wait_for_mirror(self, checkpoint: Checkpoint, *, limit_s: float) -> bool | None:
        """Wait until a checkpoint is in the mirror; return whether it is, None without a mirror."""
        return self._checkpoints.wait_for_mirror(checkpoint, limit_s=limit_s)

    # ------------------------------------------------------------------ copies aside

    def prepare(self) -> None:
        """Have the memory for saves provided while training goes on, and a copy that was resumed from saved.

        After the first step: optimizers have state then.

        Raises:
            UnsupportedValueError: Some state has no exact form on disk: no save would be possible.
        """
        if not self._is_prepared:
            self._is_prepared = True
            self._writer.release()
            self._writer.prepare(self._state.snapshot())

    def stage(self, reason: str) -> None:
        """Copy this boundary aside, for a drain that comes in the script's own code before the next one."""
        with self._lock, no_collection():
            if self._is_saved():
                return
            if self._writer.supersede():
                self.save("the save before failed")
                return
            with self._staging_budget.measured():
                snapshot = self._writer.stage(self._state.snapshot())
                self._staged = StagedBoundary(snapshot, self._manifest(reason), self._state.position.key())

    def is_staging_cheap(self) -> bool:
        """Tell whether copying a boundary aside costs little beside the steps, and no save is in flight."""
        is_busy = self._writer.is_busy or self._writer.is_writing_aside
        return self._staging_budget.is_enough() and not is_busy

    def keep_in_memory(self) -> None:
        """Copy this boundary aside, and write it to memory in the background, if that is due.

        Not while a save is in flight, which has the memory for copies, nor while that memory is provided,
        nor where this boundary is saved. It stays staged, so that a drain or an error makes the same copy
        durable.
        """
        with self._lock, no_collection():
            if not self._memory.is_due() or self._is_waited_for() or self._is_saved():
                return
            self._memory.budget.begin()
            if not self._is_staged_here():
                self.stage(FLUSHED)
            staged = self._staged  # None if the save before had failed: this boundary was saved in its place
            if staged is not None and self._memory.has_room(staged.snapshot.size_bytes):
                self._memory.budget.copied()
                self._writer.write_aside(staged.snapshot, staged.manifest, self._memory, self._memory.ended)

    def wants_copy(self, is_in_step: bool) -> bool:
        """Tell whether this rank, of several, would have the next boundary copied into memory.

        Never waits, and may come from any thread: it is a wish, and what becomes of it is decided at the
        boundary.

        Args:
            is_in_step: Whether a step is in progress, so that the next boundary is not the one crossed last.
        """
        if not self._is_prepared or self._is_waited_for() or not self._memory.is_due():
            return False
        return is_in_step or not (self._is_saved() or self._copied_key == self._state.position.key())

    def copy_together(self, number: int) -> None:
        """Copy this boundary into memory with all other ranks, or tell them that there is nothing to copy.

        What is staged is written in the background, as by `keep_in_memory`.

        Args:
            number: Number of the round in which the boundary was agreed upon.

        Raises:
            RankLostError: Rank 0 is gone.
        """
        with self._lock, no_collection():
            self._memory.budget.begin()
            key = self._state.position.key()
            is_done = self._is_saved() or self._copied_key == key
            if is_done or not self._is_prepared or self._is_waited_for():
                self._memory.decline(number)
                return
            AGREED.hit()
            if not self._is_staged_here():
                self.stage(FLUSHED)
            if self._staged is None:
                self._memory.decline(number)
                return
            self._copied_key = key
            self._memory.budget.copied()
            snapshot = self._staged.snapshot
            copy = self._memory.joint_copy(number, size_bytes=snapshot.size_bytes)
            self._writer.write_aside(
                snapshot, self._staged.manifest, copy, self._memory.ended, called_off=copy.called_off
            )

    def _is_waited_for(self) -> bool:
        """Tell whether a save is in flight, or memory is being provided: a copy would wait for it."""
        return self._writer.is_busy or self._writer.is_preparing

    # ------------------------------------------------------------------ when there is no time

    def save_now(self, reason: str) -> None:
        """Make this boundary, or the one that is staged, durable as fast as can be."""
        with self._lock, no_collection():
            if not self.is_safe_here():
                snapshot = self._state.snapshot()
                if self._is_alone:
                    self._writer.drop()
                else:
                    self._writer.wait()  # called off on one rank, it would be committed on another
                self._checkpoints.make_room(self._predicted_bytes(snapshot), is_emergency=True)
                self._writer.write_now(snapshot, self._manifest(reason))
                self._staged = None
                self._mark_saved()
            self.flush()

    def flush(self) -> Checkpoint | None:
        """Make the newest snapshot in memory durable, and return the newest checkpoint.

        May come from any thread.
        """
        with self._lock:
            if self._staged is not None:
                self._writer.write_staged(self._staged.snapshot, self._staged.manifest)
                self._staged = None
            return self.wait()

    def flush_held(self) -> Checkpoint | None:
        """Make what is staged durable if it has more steps than the disk, and return the newest checkpoint.

        What is staged before the first step of a run is worth nothing, and may not fit a corrected script.
        """
        with self._lock:
            if self._staged is not None:
                newest = self._checkpoints.lineage.newest
                if self._staged.manifest.step <= (newest.step if newest is not None else 0):
                    self._staged = None
            return self.flush()

    def is_safe_here(self) -> bool:
        """Tell whether the boundary crossed last is saved or staged: then `flush` makes it durable."""
        return self._is_staged_here() or self._is_saved()

    @contextlib.contextmanager
    def excluded(self, limit_s: float) -> Iterator[list[Any] | None]:
        """Let nothing be saved or staged meanwhile.

        Give what `flush` would make durable, None if not in time.

        It is told as a value that two ranks have in common if they would flush the same boundary.
        """
        is_locked = self._lock.acquire(timeout=limit_s)
        try:
            if not is_locked:
                yield None
            elif self._staged is not None:
                yield ["staged", *self._staged.key]
            else:
                yield ["saved", *(self._saved_key or ())]
        finally:
            if is_locked:
                self._lock.release()

    # ------------------------------------------------------------------ within

    def mark_resumed(self, key: tuple[int, ...]) -> None:
        """Note that the boundary of this key is the checkpoint resumed from."""
        self._saved_key = key

    def _is_saved(self) -> bool:
        if self._resume.is_pending:
            # the interrupted loop is not reached again yet: the checkpoint resumed from is still good
            return True
        return self._saved_key == self._state.position.key()

    def _mark_saved(self) -> None:
        self.is_asked = False
        self.scores = {}
        self._saved_key = self._state.position.key()

    def _is_staged_here(self) -> bool:
        """Tell whether what is staged is the boundary crossed last, and no former one."""
        return self._staged is not None and self._staged.key == self._state.position.key()

    def _keep_reserve(self, snapshot: Snapshot) -> None:
        """Set a little room aside for an emergency, once there is a first checkpoint."""
        if self._checkpoints.sequence.saves and not self._has_reserve and self._checkpoints.is_committer:
            self._has_reserve = True
            self._checkpoints.store.keep_reserve(min(self._predicted_bytes(snapshot), RESERVE_BYTES_MAX))

    def _predicted_bytes(self, snapshot: Snapshot) -> int:
        """Return how much room the files of all ranks take."""
        return snapshot.predicted_bytes * self._settings.environment.world_size

    def _manifest(self, reason: str, *, is_final: bool = False) -> Manifest:
        position, environment = self._state.position, self._settings.environment
        details = SaveDetails(
            job=self._settings.run_name,
            attempt=self._settings.attempt,
            batch=position.batch,
            history_bytes=self._rows.mark(),
            world_size=environment.world_size,
            is_final=is_final,
            fingerprint=self._state.fingerprint(with_data=True),
        )
        return self._checkpoints.lineage.manifest(
            step=position.step,
            epoch=position.epoch,
            scores={name: score() if callable(score) else score for name, score in self.scores.items()},
            reason=reason,
            details=details,
        )
