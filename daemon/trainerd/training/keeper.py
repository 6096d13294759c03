"""Keeps a run: saves its boundaries, remembers which are saved, and finds the way back to the newest.

Invariants:
    A boundary is saved at most once, unless it was scored in the meantime.
    The history is durable as far as a checkpoint says before that checkpoint is committed.
    After a resume in the middle of an epoch, the state is put back a second time where the interrupted loop
    begins: what the code before it drew and changed was done before the checkpoint already.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from trainerd.checkpoint.store import CheckpointStore
from trainerd.training.cadence import LastSave, due_reason, epoch_due_reason
from trainerd.training.checkpointer import Checkpointer, SaveDetails
from trainerd.training.history import HistoryWriter
from trainerd.training.position import Position
from trainerd.training.run_state import RunState

if TYPE_CHECKING:
    from trainerd.checkpoint.manifest import Manifest
    from trainerd.checkpoint.store import Checkpoint
    from trainerd.training.restore import StateTree
    from trainerd.training.settings import Settings
    from trainerd.training.writer import Held


class RunKeeper:
    """Saves and restores one run."""

    def __init__(self, settings: Settings, state: RunState, *, attempt: int) -> None:
        keep = settings.checkpoint.keep
        self.state = state
        self.saves = 0
        self.skipped_saves = 0
        self.is_asked_to_save = False
        self.scores: dict[str, float] = {}
        self.checkpointer = Checkpointer(
            CheckpointStore.of_run(settings.run),
            {},
            keep_last=keep.keep_last,
            keep_best=keep.keep_best,
            keep_every=keep.keep_every,
            on_saved=self._count,
        )
        self._settings = settings
        self._attempt = attempt
        self._every = settings.checkpoint.every
        self._ranking = {rule.metric for rule in keep.keep_best}
        self._last_save = LastSave(0, time.monotonic())
        self._saved_key: tuple[int, ...] | None = None
        self._held: tuple[Held, Manifest] | None = None
        self._pending: StateTree | None = None
        self._resume_position = Position()

    def open(self) -> None:
        """Take the run's lock and open its history.

        Raises:
            LockedError: Another process trains this run.
        """
        self.checkpointer.open()
        self.history = HistoryWriter(self._settings.run.metrics)

    def close(self) -> None:
        self.history.close()
        self.checkpointer.close()

    @property
    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is durable."""
        return self.checkpointer.newest

    # ------------------------------------------------------------------ resuming

    def restore(self) -> Checkpoint | None:
        """Restore the newest checkpoint that verifies and say so in the history; None if there is none.

        Raises:
            MismatchError: It does not fit what is tracked; nothing was changed.
        """
        checkpoint = self.checkpointer.find()
        position = self.state.position
        if checkpoint is not None:
            tree = self.checkpointer.read(checkpoint)
            self.state.restore(tree, source=checkpoint.name)
            self.checkpointer.adopt(checkpoint)
            self._saved_key = position.key()
            self._resume_position = position.copied()
            if position.is_inside_epoch():
                self._pending = tree
                position.loop = position.batch = 0
        self._settings.run.finished.unlink(missing_ok=True)
        self.history.begin(
            attempt=self._attempt,
            checkpoint=checkpoint.name if checkpoint else None,
            step=position.step,
            keep_bytes=checkpoint.manifest.history_bytes if checkpoint else 0,
        )
        self._last_save = LastSave(position.step, time.monotonic())
        return checkpoint

    def skips_loop(self) -> bool:
        """Tell whether the training loop that begins now was finished before the checkpoint; if so, it is over."""
        position = self.state.position
        if self._pending is None or position.loop >= self._resume_position.loop:
            return False
        position.end_loop()
        if position.key() == self._resume_position.key():
            self.restore_again()
        return True

    def restore_again(self) -> None:
        """Put everything back once more, if the interrupted loop is the one that begins now."""
        tree, self._pending = self._pending, None
        if tree is not None:
            assert self.checkpointer.resumed_from is not None
            self.state.restore(tree, source=self.checkpointer.resumed_from.name)

    # ------------------------------------------------------------------ saving

    def due_after_step(self, *, is_last_batch: bool) -> str | None:
        """Return why this boundary is to be saved, None if it is not.

        The last batch of an epoch whose end will be saved waits for it: the same step, and with its scores.
        """
        reason = "asked" if self.is_asked_to_save else self._due()
        position = self.state.position
        at_end = epoch_due_reason(self._every, epochs_done=position.epoch + 1, has_score=False)
        return None if is_last_batch and at_end else reason

    def due_after_epoch(self) -> str | None:
        """Return why the end of this epoch is to be saved, None if it is not."""
        done = self.state.position.epoch
        has_score = not self._ranking.isdisjoint(self.scores)
        at_end = epoch_due_reason(self._every, epochs_done=done, has_score=has_score)
        return at_end or ("asked" if self.is_asked_to_save else self._due())

    def save(self, reason: str, *, is_final: bool = False) -> None:
        """Save this boundary in the background, unless that was done already. Raises what the save before raised.

        Raises:
            UnsupportedValueError: Some state has no exact form on disk.
            SpaceError: The disk is full.
        """
        if self._is_saved():
            return
        self.checkpointer.write(self.state.snapshot(), self._manifest(reason, is_final=is_final))
        self._mark_saved()

    def save_if_free(self, reason: str) -> bool:
        """Save this boundary if no save is in flight; otherwise count it and leave it to the next boundary."""
        if self.checkpointer.is_saving:
            self.skipped_saves += 1
            return False
        self.save(reason)
        return True

    def save_now(self, reason: str) -> None:
        """Make this boundary, or the one that is held, durable as fast as can be."""
        if self._held is not None:
            self.history.sync()
            self.checkpointer.write_held(*self._held)
            self._held = None
        elif not self._is_saved():
            self.checkpointer.write(self.state.snapshot(), self._manifest(reason), is_urgent=True)
            self._mark_saved()
        self.checkpointer.wait()

    def hold(self) -> None:
        """Copy this boundary aside, for a drain that comes in the script's own code before the next one."""
        if not self._is_saved():
            held = self.checkpointer.hold(self.state.snapshot())
            self._held = (held, self._manifest("drain", sync=False))

    def release(self) -> None:
        """A new boundary: what was held is of no use any more."""
        self._held = None

    def forget_pending(self) -> None:
        """The epoch that was interrupted is over."""
        self._pending = None

    def _due(self) -> str | None:
        return due_reason(self._every, self._last_save, step=self.state.position.step, now_s=time.monotonic())

    def _is_saved(self) -> bool:
        if self._pending is not None:
            return True  # the interrupted loop is not reached again yet: the checkpoint resumed from still stands
        return self._saved_key == self.state.position.key() and not self.scores

    def _mark_saved(self) -> None:
        self.is_asked_to_save = False
        self.scores = {}
        self._saved_key = self.state.position.key()
        self._last_save = LastSave(self.state.position.step, time.monotonic())

    def _manifest(self, reason: str, *, is_final: bool = False, sync: bool = True) -> Manifest:
        position = self.state.position
        details = SaveDetails(
            job=self._settings.environment.job or self._settings.run.root.name,
            attempt=self._attempt,
            batch=position.batch,
            history_bytes=self.history.sync() if sync else self.history.position_bytes,
            world_size=self._settings.environment.world_size,
            is_final=is_final,
        )
        return self.checkpointer.manifest(
            step=position.step, epoch=position.epoch, scores=self.scores, reason=reason, details=details
        )

    def _count(self, _checkpoint: Checkpoint) -> None:
        self.saves += 1
