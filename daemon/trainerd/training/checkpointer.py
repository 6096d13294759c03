"""`Checkpointer`: save and resume the state of objects, for loops that are not ours. The session is built on it.

with trainerd.Checkpointer("checkpoints", {"model": model, "optimizer": optimizer}) as checkpointer:
    checkpoint = checkpointer.resume()
    for step in range(checkpoint.step if checkpoint else 0, steps):
        ...
        if (step + 1) % 100 == 0:
            checkpointer.save(step=step + 1, scores={"accuracy": accuracy})
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import torch

from trainerd.checkpoint.retention import best_of
from trainerd.checkpoint.store import Checkpoint, CheckpointStore
from trainerd.contract.policy import KeepBest, KeepEvery, Mode, RetentionPolicy
from trainerd.errors import DeviceCopyError, SpaceError, UserError
from trainerd.training.distributed.joint_save import JointSaves
from trainerd.training.engine.lineage import Lineage, SaveDetails, was_rolled_back_to
from trainerd.training.state.rank_files import read_verified
from trainerd.training.state.restore import CLASSES
from trainerd.training.state.snapshot import Snapshot, take_snapshot
from trainerd.training.state.tracked import Objects, Stateful, check_tracked, optimizer_classes
from trainerd.training.writing.gc_pause import no_collection
from trainerd.training.writing.mirror import Mirror
from trainerd.training.writing.writer import CheckpointWriter, StagedSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from types import TracebackType

    from trainerd.checkpoint.manifest import Manifest
    from trainerd.checkpoint.storage import Storage
    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.state.restore import StateTree

__all__ = ["Checkpointer", "SaveDetails"]

COMMITTING_RANK: Final = 0
REMOVAL_LIMIT_S: Final = 60.0
"""How long `close` waits for the deletion of what was pruned, in seconds; the next start goes on with the rest."""


class Checkpointer:
    """Saves and restores named objects in one folder.

    Args:
        directory: Where the checkpoints go; made if it is missing. Or a `CheckpointStore`.
        objects: What to save, by name: each with ``state_dict`` and ``load_state_dict``. A single object is
            called ``state``.
        keep_last: How many of the newest to keep; None keeps all.
        keep_best: Which to keep by score, besides.
        keep_every: Which to keep for good, besides.
        asynchronous: Whether `save` returns once the state is copied, and writes in the background.
        score_functions: Functions without arguments that return a score, by its name; called at each save.
        on_saved: Called with each new checkpoint once it is durable and what it replaces is pruned; from the
            thread that wrote it.
        mirror: Where committed checkpoints are copied to besides, and brought back from if the folder is empty:
            a URL that fsspec knows, or a `Storage`.
        rank: Which of several processes this is. Only rank 0 writes; `save` does nothing in the others. As
            torch.distributed or ``RANK`` says if not given.
        ranks: Whom to save together with: then each rank writes files of its own, at the same saves, and rank 0
            commits. Only `write`, `hold` and `write_staged` do so.

    Invariants:
        It holds the folder's writers' lock from its first save or resume until `close`.
        Nothing is pruned before what replaces it is durable and was read back.
        All that it knows is on disk: another one on the same folder knows as much.
    """

    def __init__(
        self,
        directory: str | Path | CheckpointStore,
        objects: Mapping[str, Stateful] | Stateful,
        *,
        keep_last: int | None = 3,
        keep_best: KeepBest | Sequence[KeepBest] | None = None,
        keep_every: KeepEvery | None = None,
        asynchronous: bool = True,
        score_functions: Mapping[str, Callable[[], float]] | None = None,
        on_saved: Callable[[Checkpoint], None] | None = None,
        mirror: Storage | str | None = None,
        rank: int | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.store = directory if isinstance(directory, CheckpointStore) else CheckpointStore(Path(directory))
        named = {"state": objects} if isinstance(objects, Stateful) else objects
        self.objects: Objects = {name: check_tracked(name, value) for name, value in named.items()}
        best = (keep_best,) if isinstance(keep_best, KeepBest) else tuple(keep_best or ())
        self.policy = RetentionPolicy(keep_last=keep_last, keep_best=best, keep_every=keep_every)
        self.resumed_from: Checkpoint | None = None
        self._rank = _this_rank() if rank is None else rank
        self._is_asynchronous = asynchronous
        self._score_functions = dict(score_functions or {})
        self._on_saved = on_saved
        self._lineage = Lineage()
        self._newest: Checkpoint | None = None
        self._has_looked = False
        self._held_lock = contextlib.ExitStack()
        self._is_open = False
        self._mirror = Mirror(_storage_at(mirror)) if mirror is not None else None
        self._is_writer = self.is_committer or ranks is not None
        self._writer = CheckpointWriter(
            self.store,
            rank=ranks.rank if ranks is not None else 0,
            after_commit=self._take_in,
            begin=JointSaves(ranks, self.store).begin if ranks is not None else None,
        )

    @property
    def is_committer(self) -> bool:
        """Whether this process is the one that writes."""
        return self._rank == COMMITTING_RANK

    def open(self) -> Self:
        """Take the writers' lock and sweep what a crash left. Done by the first save or resume.

        Raises:
            LockedError: Another process writes here.
        """
        if not self._is_open and self.is_committer:
            self._held_lock.enter_context(self.store.lock())
            self._is_open = True
            self.store.sweep()
        return self

    def close(self) -> None:
        """Wait for the write in flight, and for its copy in the mirror, and let go of the lock.

        Raises:
            SpaceError: The disk was full for the write in flight.
            OSError: The write in flight failed.
        """
        try:
            self.wait()
            if self._mirror is not None:
                self._mirror.wait()
                self._mirror.warn()
        finally:
            self._writer.close()
            self.store.wait_for_removals(limit_s=REMOVAL_LIMIT_S)
            self._held_lock.close()
            self._is_open = False

    # ------------------------------------------------------------------ saving

    def save(
        self,
        *,
        step: int,
        epoch: int | None = None,
        scores: Mapping[str, float] | None = None,
        reason: str | None = None,
    ) -> None:
        """Save the objects as they are now. They may change as soon as this returns.

        Waits for a save in flight, and raises what that one raised. Checkpoints of a later step are none that
        this one follows: they are set aside, not deleted, and never resumed from.

        Args:
            step: Steps done.
            epoch: Epochs done.
            scores: By which checkpoints are ranked; added to what the score functions say.
            reason: A word for the listing.

        Raises:
            UserError: The step or a score is not a number.
            UnsupportedValueError: Some state has no exact form on disk; nothing was written.
            SpaceError: The disk is full; the former checkpoints are as they were.
            DeviceCopyError: A tensor arrived damaged from its CUDA device in two saves.
        """
        if not self.is_committer:
            return
        _check_whole("step", step)
        _check_whole("epoch", epoch or 0)
        all_scores = {name: function() for name, function in self._score_functions.items()} | dict(
            scores or {}
        )
        numbers = {name: _as_score(name, score) for name, score in all_scores.items()}
        with no_collection():
            snapshot = take_snapshot(self.objects, extra={CLASSES: optimizer_classes(self.objects)})
            self._writer.supersede()
            self._lineage_must_follow(step)
            self.make_room(snapshot.predicted_bytes)
            manifest = self.manifest(step=step, epoch=epoch or 0, scores=numbers, reason=reason or "asked")
            self.write(snapshot, manifest)

    def write(
        self,
        snapshot: Snapshot,
        manifest: Manifest,
        *,
        is_urgent: bool = False,
        before_commit: Callable[[], object] | None = None,
    ) -> None:
        """Save a snapshot: in the background, or at once if it is urgent or nothing is to be asynchronous.

        Args:
            snapshot: What to save.
            manifest: What it is.
            is_urgent: Whether nothing else matters now.
            before_commit: Makes durable what the manifest speaks of; called at once or by the writing thread.
        """
        if not self._is_writer:
            return
        self.open()
        if self._is_asynchronous and not is_urgent:
            self._writer.write_in_background(snapshot, manifest, before_commit=before_commit)
            return
        if before_commit is not None:
            before_commit()
        if is_urgent:
            self._writer.write_now(snapshot, manifest)
        else:
            self._writer.write_and_wait(snapshot, manifest)

    def prepare(self, snapshot: Snapshot) -> None:
        """Have the memory for saves of this size provided meanwhile: the first one then costs no more than others."""
        if self._is_writer and self._is_asynchronous:
            self._writer.prepare(snapshot)

    def stage(self, snapshot: Snapshot) -> StagedSnapshot:
        """Copy a snapshot into memory that is kept for that, to be written by `write_staged` or not at all."""
        return self._writer.stage(snapshot)

    def write_staged(self, staged: StagedSnapshot, manifest: Manifest) -> None:
        """Write what is staged; when this returns it is durable."""
        if self._is_writer:
            self._writer.write_staged(staged, manifest)

    def wait(self) -> Checkpoint | None:
        """Wait until every save is durable; return the newest checkpoint.

        Raises:
            SpaceError: The disk was full for the save in flight.
            DeviceCopyError: A tensor of the save in flight arrived damaged from its CUDA device. The next save is made
                with blocking copies.
            OSError: The save in flight failed.
        """
        self._writer.wait()
        return self.newest

    def supersede(self) -> bool:
        """Wait for the save in flight, which a newer one is about to follow; see `CheckpointWriter.supersede`."""
        return self._writer.supersede()

    def call_off(self) -> None:
        """Stop the write in flight if it has not come too far, for one that is newer. What it raises is dropped."""
        with contextlib.suppress(OSError, SpaceError, DeviceCopyError):
            self._writer.call_off()

    def make_room(self, needed_bytes: int, *, is_emergency: bool = False) -> None:
        """See to it that a save of that size will fit; see `CheckpointStore.make_room`.

        Raises:
            SpaceError: It would not fit. Nothing was begun.
        """
        if self.is_committer:
            self.open()
            self.store.make_room(
                needed_bytes, self.policy, protected=self._protected(), is_emergency=is_emergency
            )

    @property
    def is_saving(self) -> bool:
        """Whether a save is in flight."""
        return self._writer.is_busy

    @property
    def has_failed_save(self) -> bool:
        """Whether a save has failed that nobody has waited for yet: the next one, or `wait`, raises why."""
        return self._writer.has_failed

    def manifest(
        self,
        *,
        step: int,
        epoch: int,
        scores: Mapping[str, float],
        reason: str,
        details: SaveDetails | None = None,
    ) -> Manifest:
        """Return the manifest of the next checkpoint of this line."""
        return self._lineage.manifest(step=step, epoch=epoch, scores=scores, reason=reason, details=details)

    def reset(self, reason: str = "a new beginning was asked for") -> None:
        """Begin anew in the same folder, as for the next fold: what is there is set aside, not deleted.

        The objects keep their state; resetting them is the caller's business.
        """
        if self.is_committer:
            self.open()
            self._writer.wait()
            self.store.set_aside_after(None, reason)
        self._newest = self.resumed_from = None
        self._lineage = Lineage()

    def _lineage_must_follow(self, step: int) -> None:
        newest = self.newest
        if newest is None or newest.step <= step:
            return
        self.open()
        before = [checkpoint for checkpoint in self.checkpoints() if checkpoint.step <= step]
        self._newest = before[-1] if before else None
        self.store.set_aside_after(self._newest, f"step {step} was saved, which does not follow from it")
        self._lineage.fork()

    def _protected(self) -> dict[str, str]:
        """Return what is never pruned, with the reasons."""
        newest = {self._newest.name: "newest"} if self._newest is not None else {}
        return newest | ({self.resumed_from.name: "resumed from"} if self.resumed_from is not None else {})

    def _take_in(self, checkpoint: Checkpoint, *, is_urgent: bool) -> None:
        self._newest = self._lineage.head = checkpoint
        if self.is_committer:
            self._prune_and_mirror(checkpoint, is_urgent=is_urgent)
        if self._on_saved is not None:
            self._on_saved(checkpoint)

    def prune_after_resume(self) -> None:
        """Prune what earlier attempts did not come to: an urgent save prunes nothing, nor does who is killed after a commit.

        Otherwise a run that is drained again and again before its first periodic save would grow with every attempt.
        """
        if not self.is_committer or self.resumed_from is None:
            return
        removed = self._prune()
        if self._mirror is not None and removed:
            self._mirror.take(self.resumed_from, removed=removed)

    def _prune(self) -> list[str]:
        """Prune as the policy says; return the names of what went."""
        plan = self.store.prune(self.policy, protected=self._protected(), in_background=True)
        return [decision.name for decision in plan.prune]

    def _prune_and_mirror(self, checkpoint: Checkpoint, *, is_urgent: bool) -> None:
        # Nothing is pruned before the new one was read back, and an urgent save was not.
        removed = [] if is_urgent else self._prune()
        if self._mirror is not None:
            self._mirror.warn()
            self._mirror.take(checkpoint, removed=removed)

    # ------------------------------------------------------------------ resuming

    def resume(self) -> Checkpoint | None:
        """Put the newest checkpoint that verifies into the objects, None if there is none.

        Where torch.distributed is in use, every rank calls this, and all take the one that rank 0 found.

        Raises:
            MismatchError: It does not fit the objects; nothing was changed.
            LockedError: Another process writes here.
        """
        found = self.find() if self.is_committer or not _is_distributed() else None
        checkpoint = self._agreed(found[0] if found is not None else None)
        if checkpoint is not None:
            tree = found[1] if found is not None else self.read(checkpoint)
            tree.apply(self.objects, source=checkpoint.name)
            self.adopt(checkpoint)
        return checkpoint

    def load(
        self,
        which: str | Checkpoint,
        *,
        strict: bool = True,
        only: Collection[str] | None = None,
        exclude: Collection[str] = (),
    ) -> Checkpoint:
        """Put one checkpoint into the objects, after verifying it; for transfer, a part of it.

        After a whole one, later saves follow from it.

        Args:
            which: ``step-120``, ``120``, the full name, or a `Checkpoint`.
            strict: Refuse any difference; otherwise take what fits, and warn of what is left as it was.
            only: Patterns of what to take, such as ``model`` or ``model.layer1.*``.
            exclude: Patterns of what to leave out.

        Raises:
            UserError: There is none of that name, or a pattern matches nothing.
            CorruptError: It does not verify.
            MismatchError: It does not fit; nothing was changed.
        """
        self._writer.wait()
        checkpoint = self.store.find(which) if isinstance(which, str) else which
        with self.store.reading(checkpoint):
            tree = read_verified(checkpoint, 0)
        tree.apply(self.objects, source=checkpoint.name, strict=strict, only=only, exclude=exclude)
        if strict and only is None and not exclude:
            self._lineage.go_on_from(checkpoint)
            self.resumed_from = checkpoint
        return checkpoint

    def find(self) -> tuple[Checkpoint, StateTree] | None:
        """Return the newest checkpoint that verifies, and what is in it; damaged ones are moved to quarantine.

        Where there is none, the mirror is asked. A process that does not write moves nothing.
        """
        if not self.is_committer:
            sound = self.store.newest_sound()
            return (sound, self.read(sound)) if sound is not None else None
        self.open()
        self.wait()
        found = self.store.newest_read(self.read)
        if found is None and self._mirror is not None:
            pulled = self._mirror.pull(self.store)
            found = (pulled, self.read(pulled)) if pulled is not None else None
        self._newest, self._has_looked = found[0] if found else None, True
        return found

    def read(self, checkpoint: Checkpoint, *, rank: int = 0) -> StateTree:
        """Read a checkpoint into memory, verifying every byte on the way.

        Raises:
            CorruptError: It is not what was written.
        """
        return read_verified(checkpoint, rank)

    def adopt(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`: later saves are of its line, and it is not pruned."""
        self.resumed_from = self._newest = checkpoint
        self._lineage.go_on_from(checkpoint)
        if was_rolled_back_to(self.store, checkpoint):
            self._lineage.fork()

    def _agreed(self, found: Checkpoint | None) -> Checkpoint | None:
        if not _is_distributed():
            return found
        names = [found.name if found is not None else None]
        torch.distributed.broadcast_object_list(names, src=COMMITTING_RANK)
        if self.is_committer or names[0] is None:
            return found
        checkpoint = self.store.find(names[0])
        self.store.verify(checkpoint)
        return checkpoint

    # ------------------------------------------------------------------ looking

    @property
    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is durable, None if there is none."""
        if self._newest is None and not self._has_looked:
            present = self.checkpoints()
            self._newest, self._has_looked = (present[-1] if present else None), True
        return self._newest

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Return what is there, oldest first."""
        return self.store.checkpoints()

    def best(self, metric: str, *, mode: Mode | None = None) -> Checkpoint | None:
        """Return the checkpoint with the best score, None if none has one.

        Args:
            metric: Name of the score.
            mode: Whether ``max`` or ``min`` is better; as `keep_best` says if not given.

        Raises:
            UserError: No mode is given, and the policy does not say which scores of that name are better.
        """
        rules = [rule for rule in self.policy.keep_best if rule.metric == metric]
        if mode is not None:
            rules = [KeepBest(metric, mode=mode, on_tie=rules[0].on_tie if rules else "first")]
        if not rules:
            known = ", ".join(rule.metric for rule in self.policy.keep_best) or "none"
            raise UserError(
                f"no keep_best rule names {metric!r}",
                hint=f"there are: {known}; or say mode='max' or mode='min'",
            )
        return best_of(self.checkpoints(), rules[0])

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _this_rank() -> int:
    return torch.distributed.get_rank() if _is_distributed() else int(os.environ.get("RANK") or 0)


def _storage_at(place: Storage | str) -> Storage:
    if not isinstance(place, str):
        return place
    from trainerd.checkpoint.fsspec_storage import FsspecStorage

    return FsspecStorage(place)


def _check_whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"save({name}={value!r:.60}): a whole number from 0 is meant")


def _as_score(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"the score {name}={value!r:.60} is not a number") from error
