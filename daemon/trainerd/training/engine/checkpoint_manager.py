"""Keeps a run: saves its boundaries, remembers which are saved, and finds the way back to the newest.

Invariants:
    A boundary is saved at most once, unless it was scored in the meantime.
    What the deadline's thread may touch is touched under the lock: what is staged, and the checkpointer.
    The history is durable as far as a checkpoint says before that checkpoint is committed.
    After a resume in the middle of an epoch, the state is put back a second time where the interrupted loop
    begins: what the code before it drew and changed was done before the checkpoint already.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.checkpoint.fingerprint import DATA, changes, compared
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import codec
from trainerd.contract.durable import write_file
from trainerd.contract.metric_history import HEADER, read_lost
from trainerd.contract.policy import RETENTION_FORMAT
from trainerd.contract.resume_record import ResumeRecord, read_resume
from trainerd.errors import CorruptError, MismatchError, UnsupportedValueError
from trainerd.training.checkpointer import Checkpointer, SaveDetails
from trainerd.training.distributed.joint_resume import confirm_together, find_together, read_together
from trainerd.training.engine.history import HistoryWriter
from trainerd.training.engine.position import Position
from trainerd.training.engine.resume_proof import ResumeProof
from trainerd.training.engine.run_state import RunState
from trainerd.training.engine.silent_history import SilentHistory
from trainerd.training.interruption.leaving import say
from trainerd.training.schedule.pacing import Pacing
from trainerd.training.writing.gc_pause import no_collection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.checkpoint.manifest import Manifest
    from trainerd.checkpoint.store import Checkpoint
    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.settings import Settings
    from trainerd.training.state.restore import StateTree
    from trainerd.training.state.snapshot import Snapshot
    from trainerd.training.writing.writer import StagedSnapshot


RESERVE_BYTES_MAX: Final = 256 << 20
COPY_SHARE_MAX: Final = 0.01
"""Of the time of training that copies for a drain without a boundary may take."""
AGREEMENT_COST_S: Final = 0.02
"""What several ranks may wait for one another to make such a copy at the same boundary, in seconds."""
FIRST_COPY_COST_S: Final = 0.005
"""What such a copy is taken to cost before the first one, in seconds."""


class CheckpointManager:
    """Saves and restores one run."""

    def __init__(
        self, settings: Settings, state: RunState, *, attempt: int, ranks: Ranks | None = None
    ) -> None:
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
            rank=settings.environment.rank,
            ranks=ranks,
        )
        self._ranks = ranks
        self._settings = settings
        self._attempt = attempt
        self._pacing = Pacing(
            settings.checkpoint.every,
            settings.run,
            attempt=attempt,
            say=lambda plan: say(f"trainerd: {plan}"),
        )
        self._ranking = {rule.metric for rule in keep.keep_best}
        self._saved_key: tuple[int, ...] | None = None
        self._lock = threading.RLock()
        self._has_reserve = False
        self._is_prepared = False
        self._copy_cost_s = FIRST_COPY_COST_S
        self._copied_s = self._write_began_s = time.monotonic()
        self.longest_save_s: float | None = None
        self._staged: tuple[StagedSnapshot, Manifest, tuple[int, ...]] | None = None
        self._pending: StateTree | None = None
        self._resume_position = Position()
        self._saved_data: dict[str, dict[str, int]] = {}
        self._changes: tuple[str, ...] = ()
        self.proof: ResumeProof | None = None

    def open(self) -> None:
        """Take the run's lock and open its history.

        Raises:
            LockedError: Another process trains this run.
        """
        self.checkpointer.open()
        self.history: HistoryWriter | SilentHistory = SilentHistory()
        if not self.checkpointer.is_committer:
            return
        self.history = HistoryWriter(self._settings.run.metrics)
        policy = codec.to_json(self._settings.checkpoint.keep, RETENTION_FORMAT)
        if not self._settings.run.retention.exists() or self._settings.run.retention.read_bytes() != policy:
            write_file(
                self._settings.run.retention, policy
            )  # for `trainerd prune`, which has no script to ask

    def close(self) -> None:
        self.end_proof()
        try:
            self.checkpointer.close()  # the write in flight still makes the history durable
        finally:
            self.history.close()

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
        self.state.fingerprint()  # of every attempt at the same moment: modules are loaded as it goes on
        found = self._find()
        checkpoint = found[0] if found is not None else None
        position = self.state.position
        if found is not None:
            checkpoint, tree = found
            self._put_back(tree, checkpoint)
            self._compare_fingerprints(checkpoint)
            self.checkpointer.adopt(checkpoint)
            self.checkpointer.prune_after_resume()
            self._saved_key = position.key()
            self._resume_position = position.copied()
            if position.is_inside_epoch():
                self._pending = tree
                position.loop = position.batch = 0
        if self.checkpointer.is_committer:
            self._settings.run.finished.unlink(missing_ok=True)
        keep_bytes = checkpoint.manifest.history_bytes if checkpoint else 0
        self._begin_proof(checkpoint, keep_bytes)
        self.history.begin(
            attempt=self._attempt,
            checkpoint=checkpoint.name if checkpoint else None,
            step=position.step,
            keep_bytes=keep_bytes,
        )
        self._pacing.resumed(position.step)
        return checkpoint

    def _find(self) -> tuple[Checkpoint, StateTree] | None:
        if self._ranks is None:
            return self.checkpointer.find()
        checkpoint = find_together(self._ranks, self.checkpointer)
        if checkpoint is None:
            return None
        return checkpoint, read_together(self._ranks, checkpoint, self.state)

    def _put_back(self, tree: StateTree, checkpoint: Checkpoint) -> None:
        problem: MismatchError | None = None
        try:
            self.state.restore(tree, source=checkpoint.name)
        except MismatchError as error:
            problem = error
        if self._ranks is not None:
            confirm_together(self._ranks, problem)
        if problem is not None:
            raise problem
        before, now = checkpoint.manifest.world_size, self._settings.environment.world_size
        if before != now and self.checkpointer.is_committer:
            say(
                f"trainerd: {checkpoint.name} is of {before} ranks and goes on with {now}: every sample of the epoch "
                "is still used once, but steps are other ones than before: the global batch is of another size, and "
                "the random generators of ranks other than 0 begin anew"
            )

    def _compare_fingerprints(self, checkpoint: Checkpoint) -> None:
        """Say what is not as it was when the checkpoint was made; what parameters differ was refused before."""
        saved = checkpoint.manifest.fingerprint
        self._saved_data = dict(saved.get(DATA, {}))
        found = changes(compared(saved, self.state.fingerprint(), is_inside_epoch=False))
        self._changes = tuple(map(str, found))
        if self.checkpointer.is_committer:
            what = (
                f"compatible, but not the same: {', '.join(self._changes)}" if found else "all is as it was"
            )
            say(f"trainerd: attempt {self._attempt} goes on from {checkpoint.name}; {what}")

    def check_data(self, loop: int, extent: dict[str, int]) -> None:
        """See to it that the data of the loop that begins is as long as it was, if it goes on in the middle of it.

        Raises:
            MismatchError: It is not: the batches that are left would be other ones.
        """
        saved = self._saved_data.pop(str(loop), None)
        if saved is None:
            return  # compared before, or there was none
        goes_on = self._pending is not None and loop == self._resume_position.loop
        is_inside = goes_on and self._resume_position.batch > 0
        found = changes(compared({DATA: saved}, {DATA: extent}, is_inside_epoch=is_inside))
        if any(each.verdict == "refused" for each in found):
            assert self.checkpointer.resumed_from is not None
            raise MismatchError(
                f"{self.checkpointer.resumed_from.name} is in the middle of an epoch, and the data has another length",
                [str(each) for each in found],
                hint="give it the data that it had until this epoch ends, or resume from the end of an epoch",
            )
        self._changes += tuple(map(str, found))
        for each in found:
            say(f"trainerd: {each}: the order of the data is another one from here on")

    def _begin_proof(self, checkpoint: Checkpoint | None, keep_bytes: int) -> None:
        """Get ready to compare the steps that are run again with what the history says of them."""
        paths = self._settings.run
        if not isinstance(self.history, HistoryWriter) or (
            checkpoint is None and self.history.position_bytes <= len(HEADER)
        ):
            return
        former: ResumeRecord | None = None
        with contextlib.suppress(CorruptError):
            former = read_resume(paths.resume)
        is_same_sharding = checkpoint is None or (
            checkpoint.manifest.world_size == self._settings.environment.world_size
        )
        record = ResumeRecord(
            attempt=self._attempt,
            checkpoint=checkpoint.name if checkpoint else None,
            step=self.state.position.step,
            resumes=former.resumes + 1 if former else 1,
            differing_before=former.differing_before + former.differing if former else 0,
            changes=self._changes,
        )
        self.proof = ResumeProof(
            paths.resume,
            record,
            read_lost(paths.metrics, keep_bytes) if is_same_sharding else {},
            is_deterministic=torch.are_deterministic_algorithms_enabled(),
            say=say,
        )

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

    def end_proof(self) -> None:
        """Leave on record what was compared so far."""
        if self.proof is not None:
            self.proof.close()

    # ------------------------------------------------------------------ saving

    def due_after_step(self, *, is_last_batch: bool) -> str | None:
        """Return why this boundary is to be saved, None if it is not.

        The last batch of an epoch whose end will be saved waits for it: the same step, and with its scores. A save that
        has failed is met at once, by the next one: an interval later, two intervals of work would be at stake.
        """
        if self._ranks is None and self.checkpointer.has_failed_save:
            return "the save before failed"
        if is_last_batch and self._pacing.due_at_end(self.state.position.epoch + 1, has_score=False):
            return None
        step = self.state.position.step
        if self._ranks is not None:
            return self._pacing.due_alike(step)
        return "asked" if self.is_asked_to_save else self._pacing.due(step)

    def request_after_step(self) -> str | None:
        """Return why this rank, of several, would have a boundary saved of which the others cannot know."""
        if self._ranks is None:
            return None
        is_pacemaker = self.checkpointer.is_committer
        return (
            "asked"
            if self.is_asked_to_save
            else (self._pacing.due_by_clock(self.state.position.step) if is_pacemaker else None)
        )

    def due_after_epoch(self) -> str | None:
        """Return why the end of this epoch is to be saved, None if it is not."""
        position = self.state.position
        # A score may be known to one rank alone; that there will be one is known to all.
        has_score = bool(self._ranking) if self._ranks else not self._ranking.isdisjoint(self.scores)
        if at_end := self._pacing.due_at_end(position.epoch, has_score=has_score):
            return at_end
        if self._ranks is not None:
            return self._pacing.due_alike(position.step)
        return "asked" if self.is_asked_to_save else self._pacing.due(position.step)

    def save(self, reason: str, *, is_final: bool = False) -> None:
        """Save this boundary in the background, unless that was done already. Raises what the save before raised.

        Raises:
            UnsupportedValueError: Some state has no exact form on disk.
            SpaceError: The disk is full.
        """
        with self._lock, no_collection():
            if self._is_saved():
                return
            self.checkpointer.supersede()
            self._staged = None  # its memory is used now, for what is newer
            began_s = time.monotonic()
            snapshot = self.state.snapshot()
            self._keep_reserve(snapshot)
            self.checkpointer.make_room(self._predicted_bytes(snapshot))
            self._write_began_s = time.monotonic()
            manifest = self._manifest(reason, is_final=is_final)
            self.checkpointer.write(snapshot, manifest, before_commit=self.history.sync)
            self._mark_saved()
            self._copied_s = time.monotonic()
            self._pacing.saved(self.state.position.step, stall_s=self._copied_s - began_s)

    def finish(self) -> Checkpoint:
        """Save this boundary as the final one and return it once it is durable."""
        self.save("final", is_final=True)
        if self.checkpointer.supersede():
            self._saved_key = None
            self.save("final", is_final=True)
        newest = self.checkpointer.wait()
        assert newest is not None
        return newest

    def save_if_free(self, reason: str) -> bool:
        """Save this boundary if no save is in flight; otherwise count it and leave it to the next boundary.

        Several ranks wait for the save in flight: they would not all skip the same ones.
        """
        if self._ranks is None and self.checkpointer.is_saving:
            self.skipped_saves += 1
            return False
        self.save(reason)
        return True

    def save_here(self, reason: str) -> None:
        """Save the boundary crossed last, also from the script's own code after it."""
        with self._lock:
            if not self._is_staged_here():
                self.save(reason)
                return
            self.flush()
            self._mark_saved()

    def save_now(self, reason: str) -> None:
        """Make this boundary, or the one that is staged, durable as fast as can be."""
        with self._lock, no_collection():
            if not self._is_staged_here() and not self._is_saved():
                snapshot = self.state.snapshot()
                if self._ranks is None:
                    self.checkpointer.call_off()
                else:
                    self.checkpointer.wait()  # called off on one rank, it would be committed on another
                self.checkpointer.make_room(self._predicted_bytes(snapshot), is_emergency=True)
                manifest = self._manifest(reason)
                self.checkpointer.write(snapshot, manifest, is_urgent=True, before_commit=self.history.sync)
                self._staged = None
                self._mark_saved()
            self.flush()

    def flush(self) -> Checkpoint | None:
        """Make the newest snapshot in memory durable, and return the newest checkpoint. May come from any thread."""
        with self._lock:
            if self._staged is not None:
                staged, manifest, _ = self._staged
                self.history.sync()
                self.checkpointer.write_staged(staged, manifest)
                self._staged = None
            return self.checkpointer.wait()

    def is_safe_here(self) -> bool:
        """Tell whether the boundary crossed last is saved or staged: then `flush` makes it durable."""
        return self._is_staged_here() or self._is_saved()

    @contextlib.contextmanager
    def between_saves(self, limit_s: float) -> Iterator[list[Any] | None]:
        """Let nothing be saved or staged meanwhile; give what `flush` would make durable, None if not in time.

        It is told as a value that two ranks have in common if they would flush the same boundary.
        """
        is_still = self._lock.acquire(timeout=limit_s)
        try:
            if not is_still:
                yield None
            elif self._staged is not None:
                yield ["staged", *self._staged[2]]
            else:
                yield ["saved", *(self._saved_key or ())]
        finally:
            if is_still:
                self._lock.release()

    def prepare(self) -> None:
        """Have the memory for saves provided while training goes on. After the first step: optimizers have state then."""
        if not self._is_prepared:
            self._is_prepared = True
            with contextlib.suppress(UnsupportedValueError):  # the first save says so
                self.checkpointer.prepare(self.state.snapshot())

    def stage(self, reason: str) -> None:
        """Copy this boundary aside, for a drain that comes in the script's own code before the next one."""
        with self._lock, no_collection():
            if not self._is_saved():
                if self.checkpointer.supersede():
                    self.save("the save before failed")
                    return
                began_s = time.monotonic()
                staged = self.checkpointer.stage(self.state.snapshot())
                self._staged = (staged, self._manifest(reason), self.state.position.key())
                self._copied_s = time.monotonic()
                self._copy_cost_s += (self._copied_s - began_s - self._copy_cost_s) / 2

    def is_staging_cheap(self) -> bool:
        """Tell whether copying a boundary aside costs next to nothing beside the steps, and no save is in flight."""
        since_s = time.monotonic() - self._copied_s
        cost_s = self._copy_cost_s + (AGREEMENT_COST_S if self._ranks is not None else 0.0)
        return since_s * COPY_SHARE_MAX >= cost_s and not self.checkpointer.is_saving

    def stage_if_cheap(self, reason: str) -> None:
        """Copy this boundary aside if that is cheap."""
        if self.is_staging_cheap():
            self.stage(reason)

    def _is_staged_here(self) -> bool:
        """Tell whether what is staged is the boundary crossed last, and no former one."""
        return self._staged is not None and self._staged[2] == self.state.position.key()

    def forget_pending(self) -> None:
        """The epoch that was interrupted is over."""
        self._pending = None

    def _keep_reserve(self, snapshot: Snapshot) -> None:
        """Set a little room aside for an emergency, once there is a first checkpoint."""
        if self.saves and not self._has_reserve and self.checkpointer.is_committer:
            self._has_reserve = True
            self.checkpointer.store.keep_reserve(min(self._predicted_bytes(snapshot), RESERVE_BYTES_MAX))

    def _predicted_bytes(self, snapshot: Snapshot) -> int:
        """Return how much room the files of all ranks take."""
        return snapshot.predicted_bytes * self._settings.environment.world_size

    def _is_saved(self) -> bool:
        if self._pending is not None:
            return True  # the interrupted loop is not reached again yet: the checkpoint resumed from still stands
        is_scored_since = bool(self.scores) and self._ranks is None  # known to one rank, it decides for none
        return self._saved_key == self.state.position.key() and not is_scored_since

    def _mark_saved(self) -> None:
        self.is_asked_to_save = False
        self.scores = {}
        self._saved_key = self.state.position.key()

    def _manifest(self, reason: str, *, is_final: bool = False) -> Manifest:
        position = self.state.position
        details = SaveDetails(
            job=self._settings.environment.job or self._settings.run.root.name,
            attempt=self._attempt,
            batch=position.batch,
            history_bytes=self.history.position_bytes,
            world_size=self._settings.environment.world_size,
            is_final=is_final,
            fingerprint=self.state.fingerprint(with_data=True),
        )
        return self.checkpointer.manifest(
            step=position.step, epoch=position.epoch, scores=self.scores, reason=reason, details=details
        )

    def _count(self, _checkpoint: Checkpoint) -> None:
        self.saves += 1
        self.longest_save_s = max(self.longest_save_s or 0.0, time.monotonic() - self._write_began_s)
