"""`Checkpointer`: save and resume the state of objects, for loops that are not ours.

with trainerd.Checkpointer("checkpoints", {"model": model, "optimizer": optimizer}) as checkpointer:
    checkpoint = checkpointer.resume()
    for step in range(checkpoint.step if checkpoint else 0, steps):
        ...
        if (step + 1) % 100 == 0:
            checkpointer.save(step=step + 1, scores={"accuracy": accuracy})
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from trainerd.checkpoint.retention import best_of
from trainerd.checkpoint.store import Checkpoint, CheckpointStore
from trainerd.contract.policy import KeepBest, KeepEvery, Mode
from trainerd.errors import UserError
from trainerd.training.engine.checkpoint_manager import COMMITTING_RANK, CheckpointManager
from trainerd.training.engine.rehearsed_saves import rehearsed_saves
from trainerd.training.setting_values import SettingValues
from trainerd.training.state.objects import TrackedObjects
from trainerd.training.state.rank_files import read_verified
from trainerd.training.state.snapshot import take_snapshot
from trainerd.training.state.tracked import Stateful
from trainerd.training.writing.gc_pause import no_collection
from trainerd.training.writing.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from types import TracebackType

    from trainerd.checkpoint.storage import Storage

__all__ = ["Checkpointer"]


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
        mirror: Where committed checkpoints are copied to besides, and brought back from if the folder is
            empty: a URL that fsspec knows, or a `Storage`.
        rank: Which of several processes this is. Only rank 0 writes; `save` does nothing in the others. As
            torch.distributed or ``RANK`` says if not given.

    Attributes:
        store: The folder's checkpoints, and what was set aside.
        objects: What is saved, by name.
        is_committer: Whether this process is the one that writes.

    Raises:
        UserError: An object has no state, or its name is not valid; or the mirror's URL cannot be used.
        LockedError: The block is entered while another process writes to the folder.
        SpaceError: At the end of the block, if the disk was full for the write in flight.

    Invariants:
        It holds the folder's writers' lock from its first save or resume until `close`.
        Nothing is pruned before what replaces it is durable and was read back.
        All of its state is on disk: a second `Checkpointer` on the same folder finds the same checkpoints.
    """

    def __init__(
        self,
        directory: str | Path | CheckpointStore,
        objects: Mapping[str, Stateful] | Stateful,
        *,
        keep_last: int | None = 3,
        keep_best: KeepBest | Mapping[str, Any] | Sequence[KeepBest | Mapping[str, Any]] | None = None,
        keep_every: KeepEvery | Mapping[str, Any] | None = None,
        asynchronous: bool = True,
        score_functions: Mapping[str, Callable[[], float]] | None = None,
        on_saved: Callable[[Checkpoint], None] | None = None,
        mirror: Storage | str | None = None,
        rank: int | None = None,
    ) -> None:
        given = SettingValues("Checkpointer")
        policy = given.retention(keep_last, keep_best, keep_every)
        if not isinstance(directory, CheckpointStore):
            directory = CheckpointStore(Path(given.folder("directory", directory)))
        self.store = directory
        self._rehearsed = rehearsed_saves()
        self._real_store = self.store
        if self._rehearsed is not None:
            # A drill touches no real run: it saves elsewhere, and mirrors nothing.
            self.store = CheckpointStore(self._rehearsed.folder_for(self.store.directory))
            policy, mirror = replace(policy, keep_last=None), None
        named = {"state": objects} if isinstance(objects, Stateful) else objects
        if not isinstance(named, Mapping):
            raise given.error(
                "objects", objects, "an object with state_dict and load_state_dict, or a dict of these"
            )
        self.objects = TrackedObjects()
        for name, value in named.items():
            self.objects.track(name, value)
        self._keep_best = policy.keep_best
        self._is_asynchronous = given.flag("asynchronous", asynchronous)
        self._score_functions = _functions(given, score_functions)
        if on_saved is not None and not callable(on_saved):
            raise given.error("on_saved", on_saved, "a function")
        rank = _this_rank() if rank is None else given.integer("rank", rank, at_least=0)
        self._manager = CheckpointManager(
            self.store,
            policy,
            rank=rank,
            mirror=Mirror(_storage_at(given, mirror)) if mirror is not None else None,
            on_saved=on_saved,
        )
        self.is_committer = self._manager.is_committer
        if self._rehearsed is not None:
            self._rehearsed.opened(self.store.directory, self.objects, self._manager.writer.wait)

    def open(self) -> Self:
        """Take the writers' lock and sweep what a crash left. Done by the first save or resume.

        Raises:
            LockedError: Another process writes here.
        """
        self._manager.open()
        return self

    def close(self) -> None:
        """Wait for the write in flight, and for its copy in the mirror, and let go of the lock.

        Raises:
            SpaceError: The disk was full for the write in flight.
            OSError: The write in flight failed.
        """
        self._manager.close()

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
            UserError: The step or epoch is not a non-negative integer, or a score is not a number.
            LockedError: Another process writes to the folder.
            FencedError: Another process has taken the folder over since; nothing was written.
            UnsupportedValueError: Some state has no exact form on disk; nothing was written.
            SpaceError: The disk is full; earlier checkpoints are unchanged.
            DeviceCopyError: A tensor arrived damaged from its CUDA device in two saves.
        """
        if self.is_committer:
            self._save(step=step, epoch=epoch, scores=scores, reason=reason)
        if self._rehearsed is not None:
            self._rehearsed.saved(self.store.directory, step, epoch or 0, self._manager.writer.wait)

    def _save(
        self, *, step: int, epoch: int | None, scores: Mapping[str, float] | None, reason: str | None
    ) -> None:
        _check_whole("step", step)
        _check_whole("epoch", epoch or 0)
        all_scores = {name: function() for name, function in self._score_functions.items()} | dict(
            scores or {}
        )
        numbers = {name: _as_score(name, score) for name, score in all_scores.items()}
        with no_collection():
            snapshot = take_snapshot(self.objects)
            manager, writer = self._manager.open(), self._manager.writer
            writer.supersede()
            manager.lineage.go_back_before(step)
            manager.make_room(snapshot.predicted_bytes)
            manifest = manager.lineage.manifest(
                step=step, epoch=epoch or 0, scores=numbers, reason=reason or "asked"
            )
            if self._is_asynchronous:
                writer.write_in_background(snapshot, manifest)
            else:
                writer.write_and_wait(snapshot, manifest)

    def wait(self) -> Checkpoint | None:
        """Wait until every save is durable; return the newest checkpoint.

        Raises:
            FencedError: Another process has taken the folder over; the save in flight was not committed.
            SpaceError: The disk was full for the save in flight.
            DeviceCopyError: A tensor of the save in flight arrived damaged from its CUDA device. The next
                save is made with blocking copies.
            OSError: The save in flight failed.
        """
        self._manager.writer.wait()
        return self.newest

    def reset(self, reason: str = "a new beginning was asked for") -> None:
        """Start again in the same folder, as for the next fold: its checkpoints are set aside, not deleted.

        The objects keep their state; resetting them is the caller's business.

        Args:
            reason: Why, kept with the checkpoints that are set aside.

        Raises:
            LockedError: Another process writes to the folder.
            SpaceError: The disk was full for the save in flight.
            DeviceCopyError: A tensor of the save in flight arrived damaged from its CUDA device.
        """
        self._manager.reset(reason)

    # ------------------------------------------------------------------ resuming

    def resume(self) -> Checkpoint | None:
        """Put the newest checkpoint that verifies into the objects, None if there is none.

        Where torch.distributed is in use, every rank calls this, and all take the one that rank 0 found.

        Raises:
            MismatchError: It does not fit the objects; nothing was changed.
            CorruptError: The checkpoint that rank 0 found does not verify on another rank.
            LockedError: Another process writes to the folder.
        """
        found = self._manager.find() if self.is_committer or not _is_distributed() else None
        checkpoint = self._agreed(found[0] if found is not None else None)
        if checkpoint is not None:
            tree = found[1] if found is not None else read_verified(checkpoint, 0)
            tree.apply(self.objects, source=checkpoint.name)
            self._manager.lineage.adopt(checkpoint)
            self._note_resume(checkpoint)
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
            strict: Refuse any difference; otherwise restore what fits, and warn of what is left unchanged.
            only: Patterns of what to take, such as ``model`` or ``model.layer1.*``.
            exclude: Patterns of what to leave out.

        Raises:
            UserError: No checkpoint has that name, or a pattern matches nothing.
            CorruptError: It does not verify.
            MismatchError: It does not fit; nothing was changed.
            SpaceError: The disk was full for the save in flight, for which this waits.
            DeviceCopyError: A tensor of that save arrived damaged from its CUDA device.
        """
        self._manager.writer.wait()
        checkpoint = self._find(which) if isinstance(which, str) else which
        with self.store.reading(checkpoint):
            tree = read_verified(checkpoint, 0)
        tree.apply(self.objects, source=checkpoint.name, strict=strict, only=only, exclude=exclude)
        if strict and only is None and not exclude:
            self._manager.lineage.go_on_from(checkpoint)
            self._note_resume(checkpoint)
        return checkpoint

    def _find(self, which: str) -> Checkpoint:
        try:
            return self.store.find(which)
        except UserError:
            if self._rehearsed is None:
                raise
            return self._real_store.find(which)  # a drill reads what the script begins with

    def _note_resume(self, checkpoint: Checkpoint) -> None:
        if self._rehearsed is not None:
            self._rehearsed.resumed(self.store.directory, checkpoint.step)

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
        return self._manager.lineage.newest

    @property
    def resumed_from(self) -> Checkpoint | None:
        """The checkpoint that later saves follow from since `resume` or `load`, None if from none."""
        return self._manager.lineage.resumed_from

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Return the durable checkpoints, oldest first."""
        return self.store.checkpoints()

    def best(self, metric: str, *, mode: Mode | None = None) -> Checkpoint | None:
        """Return the checkpoint with the best score, None if none has one.

        Args:
            metric: Name of the score.
            mode: Whether ``max`` or ``min`` is better; as `keep_best` says if not given.

        Raises:
            UserError: No mode is given, and the policy does not say which scores of that name are better.
        """
        rules = [rule for rule in self._keep_best if rule.metric == metric]
        if mode is not None:
            rules = [KeepBest(metric, mode=mode, on_tie=rules[0].on_tie if rules else "first")]
        if not rules:
            known = ", ".join(rule.metric for rule in self._keep_best) or "none"
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


def _functions(given: SettingValues, functions: Any) -> dict[str, Callable[[], float]]:
    if functions is None:
        return {}
    if not isinstance(functions, Mapping) or not all(callable(each) for each in functions.values()):
        raise given.error("score_functions", functions, "a dict of functions by the names of scores")
    return dict(functions)


def _storage_at(given: SettingValues, place: Storage | str) -> Storage:
    if not isinstance(place, str):
        if isinstance(place, type) or not hasattr(place, "folders"):
            raise given.error("mirror", place, "a URL such as s3://bucket/runs, or a Storage,")
        return place
    from trainerd.checkpoint.fsspec_storage import FsspecStorage

    return FsspecStorage(place)


def _check_whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"save({name}={value!r:.60}): not a non-negative integer")


def _as_score(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"the score {name}={value!r:.60} is not a number") from error
