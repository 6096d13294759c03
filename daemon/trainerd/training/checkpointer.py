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
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trainerd.checkpoint.manifest import Manifest
from trainerd.checkpoint.retention import best_of
from trainerd.checkpoint.store import Checkpoint, CheckpointStore
from trainerd.contract.clock import SystemClock
from trainerd.contract.policy import KeepBest, KeepEvery, RetentionPolicy
from trainerd.errors import UserError
from trainerd.training.rank_files import read_rank_files
from trainerd.training.snapshot import Snapshot, take_snapshot
from trainerd.training.tracked import Objects, Stateful, check_tracked
from trainerd.training.writer import CheckpointWriter, Held
from trainerd.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import TracebackType

    from trainerd.training.restore import StateTree


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
        on_saved: Called with each new checkpoint once it is durable and what it replaces is pruned; from the
            thread that wrote it.

    Invariants:
        It holds the folder's writers' lock from its first save or resume until `close`.
        Nothing is pruned before what replaces it is durable and was read back.
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
        on_saved: Callable[[Checkpoint], None] | None = None,
    ) -> None:
        self.store = directory if isinstance(directory, CheckpointStore) else CheckpointStore(Path(directory))
        named = objects if isinstance(objects, dict) else {"state": objects}
        self.objects: Objects = {name: check_tracked(name, value) for name, value in named.items()}
        best = (keep_best,) if isinstance(keep_best, KeepBest) else tuple(keep_best or ())
        self.policy = RetentionPolicy(keep_last=keep_last, keep_best=best, keep_every=keep_every)
        self.resumed_from: Checkpoint | None = None
        self.newest: Checkpoint | None = None
        self._is_asynchronous = asynchronous
        self._on_saved = on_saved
        self._lineage = uuid.uuid4().hex
        self._clock = SystemClock()
        self._held_lock = contextlib.ExitStack()
        self._is_open = False
        self._writer = CheckpointWriter(self.store, rank=0, after_commit=self._take_in)

    def open(self) -> Self:
        """Take the writers' lock and sweep what a crash left. Done by the first save or resume.

        Raises:
            LockedError: Another process writes here.
        """
        if not self._is_open:
            self._held_lock.enter_context(self.store.lock())
            self._is_open = True
            self.store.sweep()
        return self

    def close(self) -> None:
        """Wait for the write in flight and let go of the lock.

        Raises:
            SpaceError: The disk was full for the write in flight.
            OSError: The write in flight failed.
        """
        try:
            self.wait()
        finally:
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

        Waits for a save in flight, and raises what that one raised.

        Raises:
            UnsupportedValueError: Some state has no exact form on disk; nothing was written.
            SpaceError: The disk is full; the former checkpoints are as they were.
        """
        manifest = self.manifest(step=step, epoch=epoch or 0, scores=scores or {}, reason=reason or "asked")
        self.write(take_snapshot(self.objects), manifest)

    def write(self, snapshot: Snapshot, manifest: Manifest, *, is_urgent: bool = False) -> None:
        """Save a snapshot: in the background, or at once if it is urgent or nothing is to be asynchronous."""
        self.open()
        if is_urgent:
            self._writer.write_now(snapshot, manifest)
        elif self._is_asynchronous:
            self._writer.write_in_background(snapshot, manifest)
        else:
            self._writer.write_held(self._writer.hold(snapshot), manifest)

    def hold(self, snapshot: Snapshot) -> Held:
        """Copy a snapshot into memory that is kept for that, to be written by `write_held` or not at all."""
        return self._writer.hold(snapshot)

    def write_held(self, held: Held, manifest: Manifest) -> None:
        """Write what is held; when this returns it is durable."""
        self._writer.write_held(held, manifest)

    def wait(self) -> Checkpoint | None:
        """Wait until every save is durable; return the newest checkpoint.

        Raises:
            SpaceError: The disk was full for the save in flight.
            OSError: The save in flight failed.
        """
        self._writer.wait()
        return self.newest

    @property
    def is_saving(self) -> bool:
        """Whether a save is in flight."""
        return self._writer.is_busy

    def manifest(
        self,
        *,
        step: int,
        epoch: int,
        scores: Mapping[str, float],
        reason: str,
        details: SaveDetails | None = None,
    ) -> Manifest:
        """Return the manifest of a checkpoint of this line; its files are filled in when it is committed."""
        details = details or SaveDetails()
        return Manifest(
            job=details.job,
            lineage=self._lineage,
            parent=self.newest.name if self.newest is not None else None,
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

    def _take_in(self, checkpoint: Checkpoint) -> None:
        self.newest = checkpoint
        protected = {checkpoint.name} | ({self.resumed_from.name} if self.resumed_from is not None else set())
        self.store.prune(self.policy, protected=protected)
        if self._on_saved is not None:
            self._on_saved(checkpoint)

    # ------------------------------------------------------------------ resuming

    def resume(self) -> Checkpoint | None:
        """Put the newest checkpoint that verifies into the objects, None if there is none.

        Raises:
            MismatchError: It does not fit the objects; nothing was changed.
            LockedError: Another process writes here.
        """
        checkpoint = self.find()
        if checkpoint is not None:
            self.read(checkpoint).apply(self.objects, source=checkpoint.name)
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

        Args:
            which: ``step-120``, ``120``, the full name, or a `Checkpoint`.
            strict: Refuse any difference; otherwise take what fits.
            only: Patterns of what to take, such as ``model`` or ``model.layer1.*``.
            exclude: Patterns of what to leave out.

        Raises:
            UserError: There is none of that name.
            CorruptError: It does not verify.
            MismatchError: It does not fit; nothing was changed.
        """
        checkpoint = which if isinstance(which, Checkpoint) else self.store.find(which)
        with self.store.reading(checkpoint):
            self.store.verify(checkpoint)
            tree = self.read(checkpoint)
        tree.apply(self.objects, source=checkpoint.name, strict=strict, only=only, exclude=exclude)
        return checkpoint

    def find(self) -> Checkpoint | None:
        """Return the newest checkpoint that verifies; those that do not are moved to quarantine."""
        self.open()
        self.wait()
        return self.store.newest_verified()

    def read(self, checkpoint: Checkpoint, *, rank: int = 0) -> StateTree:
        """Read a verified checkpoint into memory."""
        return read_rank_files(checkpoint.path, rank)

    def adopt(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`: later saves are of its line, and it is not pruned."""
        self.resumed_from = self.newest = checkpoint
        self._lineage = checkpoint.manifest.lineage

    # ------------------------------------------------------------------ looking

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Return what is there, oldest first."""
        return self.store.checkpoints()

    def best(self, metric: str) -> Checkpoint | None:
        """Return the checkpoint with the best score, None if none has one.

        Raises:
            UserError: The policy does not say which scores of that name are better.
        """
        for rule in self.policy.keep_best:
            if rule.metric == metric:
                return best_of(self.checkpoints(), rule)
        known = ", ".join(rule.metric for rule in self.policy.keep_best) or "none"
        raise UserError(f"no keep_best rule names {metric!r}", hint=f"there are: {known}")

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
