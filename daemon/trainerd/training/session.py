"""The training session: an ordinary loop that can be killed at any moment and goes on where it was.

    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer)
        for epoch in session.epochs(10):
            for images, targets in session.batches(train_loader):
                ...
                session.log(loss=loss)
            session.report(accuracy=evaluate(model))

Invariants:
    State is captured at step boundaries and nowhere else: between two batches, or between two epochs.
    A boundary is saved at most once.
    A signal sets a flag; the flag is read at boundaries and in waits, never acted upon elsewhere.
    The position, the tracked objects and the random generators of a checkpoint are of one moment.
"""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import torch

from trainerd.checkpoint.store import Checkpoint, CheckpointStore
from trainerd.contract.durable import make_directory
from trainerd.contract.failpoints import declare
from trainerd.contract.heartbeat import HeartbeatWriter, Phase
from trainerd.contract.policy import Cadence, KeepBest, KeepEvery
from trainerd.errors import UserError
from trainerd.training import leaving
from trainerd.training.cadence import LastSave, due_reason, epoch_due_reason
from trainerd.training.checkpointer import Checkpointer, SaveDetails
from trainerd.training.data import Pass, Source, StatefulSource, WaitInterruptedError, source_for
from trainerd.training.drain import DrainFlag
from trainerd.training.history import HistoryWriter
from trainerd.training.position import Position
from trainerd.training.restore import StateTree
from trainerd.training.rng import capture_rng, restore_rng, seed_everything
from trainerd.training.settings import DEFAULT_SEED, Settings, resolve_settings
from trainerd.training.snapshot import Snapshot, take_snapshot
from trainerd.training.tracked import Objects, check_tracked
from trainerd.training.values import Value, Values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

STARTED = declare("training.started", "a run folder, and checkpoints of earlier attempts if there were any")
RESTORED = declare(
    "training.restored", "what was there before: restoring writes nothing but a marker in the history"
)
BATCH = declare("training.batch", "the newest checkpoint; the steps since are run again")
STEPPED = declare("training.stepped", "the newest checkpoint; the steps since are run again")
EVALUATED = declare("training.evaluated", "the newest checkpoint; the evaluation is run again")
EPOCH_ENDED = declare("training.epoch-ended", "the newest checkpoint, usually that of the end of the epoch")
COMPLETED = declare(
    "training.completed", "the final checkpoint; the run completes at once when it is resumed"
)

_TRAINING: Final = 1
_EVALUATION: Final = 2
_UNKNOWN: Final = -1


def session(
    run_dir: str | Path | None = None,
    *,
    seed: int | None = DEFAULT_SEED,
    every: Mapping[str, Any] | Cadence | None = None,
    keep_last: int | None = 3,
    keep_best: KeepBest | Sequence[KeepBest] | None = None,
    keep_every: KeepEvery | None = None,
    grace_s: float | None = None,
) -> Session:
    """Open a training session.

    Under a supervisor everything it needs is in the environment, and what the job's spec says wins over what
    is said here. Without one, the run is kept in `run_dir`, else ``$TRAINERD_RUN_DIR``, else
    ``./.trainerd/runs/<script>``; running the script again goes on with it.

    Args:
        run_dir: The run folder.
        seed: Seeds Python's, NumPy's and torch's generators at the start of a run, and the order of the data.
            None leaves the generators as the script has them.
        every: When to checkpoint, whichever comes first: ``{"steps": 200, "seconds": 300, "epochs": 1}``.
        keep_last: How many of the newest checkpoints to keep; None keeps all.
        keep_best: Which to keep by score besides, such as ``KeepBest("accuracy", n=2)``.
        keep_every: Which to keep for good besides.
        grace_s: Seconds from a request to stop until the process is killed, if known.

    Raises:
        UserError: A setting cannot be read.
    """
    leaving.show_user_errors_without_traceback()
    return Session(
        resolve_settings(
            run_dir=run_dir,
            seed=seed,
            every=every,
            keep_last=keep_last,
            keep_best=keep_best,
            keep_every=keep_every,
            grace_s=grace_s,
        )
    )


class Session:
    """One attempt at a run. Made by `session`, used as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._environment = settings.environment
        self._objects: Objects = {}
        self._values = Values()
        self._position = Position()
        self._epochs_total = _UNKNOWN
        self._batches_total = _UNKNOWN
        self._sources: dict[int, Source] = {}
        self._loop_sources: dict[int, Source] = {}
        self._source_states: dict[str, Any] = {}
        self._evaluations = 0
        self._flag = DrainFlag()
        self._checkpointer = Checkpointer(
            CheckpointStore.of_run(settings.run),
            {},
            keep_last=settings.checkpoint.keep.keep_last,
            keep_best=settings.checkpoint.keep.keep_best,
            keep_every=settings.checkpoint.keep.keep_every,
        )
        self._seed = DEFAULT_SEED if settings.seed is None else settings.seed
        self._is_begun = False
        self._is_in_body = False
        self._is_leaving = False
        self._restored: StateTree | None = None
        self._resume_position = Position()
        self._held: tuple[Snapshot, Position, int] | None = None
        self._saved_key: tuple[int, ...] | None = None
        self._last_save = LastSave(0, time.monotonic())
        self._saves = 0
        self._row: dict[str, Any] = {}
        self._scores: dict[str, float] = {}
        self._last_loss = math.nan
        self._warned: set[str] = set()

    # ------------------------------------------------------------------ what a script reads

    @property
    def step(self) -> int:
        """Steps finished, over all attempts."""
        return self._position.step

    @property
    def epoch(self) -> int:
        """Epoch in progress, from 0."""
        return self._position.epoch

    @property
    def attempt(self) -> int:
        """Which launch of this run this is, from 1."""
        return int(self._settings.attempt_paths.root.name)

    @property
    def resumed_from(self) -> Checkpoint | None:
        """The checkpoint this attempt went on from; None before `resume`, or if there was none."""
        return self._checkpointer.resumed_from

    @property
    def draining(self) -> bool:
        """Whether somebody asked this process to stop."""
        return self._flag.is_set

    @property
    def rank(self) -> int:
        """Which of `world_size` processes this is."""
        return self._environment.rank

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return self._environment.world_size

    @property
    def run_dir(self) -> Path:
        """The run folder: checkpoints, metric history, and room for the script's own files."""
        return self._settings.run.root

    # ------------------------------------------------------------------ what a script says

    def track(self, **objects: Any) -> None:
        """Add objects to the state of the run: models, optimizers, schedulers, anything with a ``state_dict``.

        Raises:
            UserError: An object has no state, a name is taken, or training has begun already.
        """
        if self._is_begun:
            raise UserError(
                "track() comes before the first epoch or batch: what is added later was not restored"
            )
        for name, value in objects.items():
            if name in self._objects:
                raise UserError(f"{name!r} is tracked already")
            self._objects[name] = check_tracked(name, value)

    def value(self, name: str, default: Any) -> Value[Any]:
        """Return the box of a plain value that belongs to the state of the run; see `Value`."""
        return self._values.box(name, default)

    def log(self, **values: Any) -> None:
        """Note measurements of the step in progress: numbers, or tensors with one element.

        Raises:
            UserError: A value is not a number.
        """
        for name, value in values.items():
            self._row[name] = _as_number(name, value)
        if "loss" in values:
            self._last_loss = float(self._row["loss"])

    def report(self, **scores: Any) -> None:
        """Score the state as it is: ranks the checkpoint at the end of this epoch for best-k.

        Raises:
            UserError: A score is not a number.
        """
        numbers = {name: float(_as_number(name, score)) for name, score in scores.items()}
        self._scores |= numbers
        self._begin()
        self._history.row({"report": True, "step": self.step, "epoch": self.epoch, **numbers})

    def checkpoint_now(self) -> None:
        """Save at the next step boundary, whatever the cadence says."""
        self._is_asked_to_save = True

    _is_asked_to_save = False

    # ------------------------------------------------------------------ the loop

    def resume(self) -> Checkpoint | None:
        """Restore the newest checkpoint that verifies. Done by the first `epochs` or `batches` if not before.

        Raises:
            MismatchError: It is sound and does not fit what is tracked; nothing was changed.
        """
        self._begin()
        return self.resumed_from

    def epochs(self, total: int) -> Iterator[int]:
        """Yield the numbers of the epochs that are left, beginning with the one that was interrupted."""
        self._begin()
        self._epochs_total = total
        while self._position.epoch < total:
            self._batches_total = _UNKNOWN
            self._beat(Phase.STEP)
            yield self._position.epoch
            self._end_epoch()

    def batches(self, loader: Any, *, train: bool = True, accumulate: int = 1) -> Iterator[Any]:
        """Yield the batches that are left of this epoch.

        Args:
            loader: A `DataLoader`, something with a state of its own, or any iterable that can be begun again.
            train: Whether the loop trains. One that does not is not resumed in the middle, makes no steps, and
                is where a request to stop is heard too.
            accumulate: Every so many batches make one step; the last batch of the loop always ends one.

        Raises:
            UserError: `accumulate` is less than 1.
        """
        if accumulate < 1:
            raise UserError(f"accumulate={accumulate}: at least 1 batch makes a step")
        self._begin()
        return self._training_loop(loader, accumulate) if train else self._evaluation_loop(loader)

    def _training_loop(self, loader: Any, accumulate: int) -> Iterator[Any]:
        position = self._position
        if self._is_loop_done_already():
            return
        source = self._loop_sources[position.loop] = self._source(loader)
        which = Pass((_TRAINING, position.loop), position.epoch)
        total = source.length(which)
        self._batches_total = _UNKNOWN if total is None else total
        if self._restored is not None:
            self._restore_at_loop()
        if isinstance(source, StatefulSource) and str(position.loop) in self._source_states:
            source.load_state_dict(self._source_states.pop(str(position.loop)))
        self._beat(Phase.STEP)
        iterator = source.iterate(which, position.batch, lambda: self._flag.is_set)
        while True:
            found, batch = self._next_batch(iterator)
            if not found:
                break
            self._is_in_body = True
            BATCH.hit()
            try:
                yield batch
            except GeneratorExit:  # a break: the batch counts, the loop is over
                if not self._is_leaving:
                    self._end_batch(accumulate, is_last=True)
                    position.end_loop()
                return
            self._end_batch(accumulate, is_last=position.batch + 1 == total)
        if position.batch % accumulate and total is None:
            self._end_step()
        position.end_loop()

    def _evaluation_loop(self, loader: Any) -> Iterator[Any]:
        # Told apart by the boundary they come after: an attempt that begins there counts the same.
        which = Pass((_EVALUATION, self._position.step, self._evaluations), self._position.epoch)
        self._evaluations += 1
        if not self._is_in_body:
            self._hold_snapshot()
        self._beat(Phase.EVALUATION)
        iterator = self._source(loader).iterate(which, 0, lambda: self._flag.is_set and not self._is_in_body)
        while True:
            found, batch = self._next_batch(iterator)
            if not found:
                break
            yield batch
            self._beat(Phase.EVALUATION)
            EVALUATED.hit()
            if self._flag.is_set and not self._is_in_body:
                self._leave_drained()
        self._beat(Phase.STEP)

    def _next_batch(self, iterator: Iterator[Any]) -> tuple[bool, Any]:
        """Wait for a batch. A drain asked for in the meantime, or a loader that it broke, is a boundary."""
        try:
            found, batch = True, next(iterator)
        except StopIteration:
            found, batch = False, None
        except WaitInterruptedError:
            self._leave_drained()
        except Exception:
            if self._flag.is_set and not self._is_in_body:
                self._leave_drained()
            raise
        if found and self._flag.is_set and not self._is_in_body:
            self._leave_drained()
        return found, batch

    def _is_loop_done_already(self) -> bool:
        """Tell whether the training loop that begins now was finished before the checkpoint; if so, skip it."""
        if self._restored is None or self._position.loop >= self._resume_position.loop:
            return False
        self._position.end_loop()
        if self._position.key() == self._resume_position.key():
            self._restore_at_loop()
        return True

    def _end_batch(self, accumulate: int, *, is_last: bool) -> None:
        self._is_in_body = False
        self._position.batch += 1
        if is_last or self._position.batch % accumulate == 0:
            self._end_step()

    def _end_step(self) -> None:
        position = self._position
        position.step += 1
        self._held = None
        self._evaluations = 0
        self._write_row(position.batch - 1)
        self._beat(Phase.STEP)
        STEPPED.hit()
        is_at_end = position.batch == self._batches_total
        reason = due_reason(
            self._settings.checkpoint.every, self._last_save, step=position.step, now_s=time.monotonic()
        )
        if self._is_asked_to_save:
            reason = "asked"
        if reason and not (is_at_end and self._will_save_at_end_of_epoch()):
            self._save(reason)
        if self._flag.is_set:
            self._leave_drained()

    def _will_save_at_end_of_epoch(self) -> bool:
        # The end of the epoch is the same step: saved there, it has the scores too.
        every = self._settings.checkpoint.every
        return epoch_due_reason(every, epochs_done=self._position.epoch + 1, has_score=False) is not None

    def _end_epoch(self) -> None:
        position = self._position
        position.end_epoch()
        self._held = None
        self._evaluations = 0
        self._restored = None
        if self._row:
            self._write_row(0)
        every = self._settings.checkpoint.every
        has_score = any(rule.metric in self._scores for rule in self._settings.checkpoint.keep.keep_best)
        reason = (
            epoch_due_reason(every, epochs_done=position.epoch, has_score=has_score)
            or due_reason(every, self._last_save, step=position.step, now_s=time.monotonic())
            or ("asked" if self._is_asked_to_save else None)
        )
        if reason:
            self._save(reason)
        self._scores = {}
        self._beat(Phase.STEP)
        EPOCH_ENDED.hit()
        if self._flag.is_set and position.epoch < self._epochs_total:
            self._leave_drained()

    # ------------------------------------------------------------------ saving

    def _save(self, reason: str, *, is_final: bool = False) -> None:
        """Save this boundary, unless that was done already."""
        self._is_asked_to_save = False
        if self._saved_key == self._position.key() and not self._scores:
            return
        self._beat(Phase.CHECKPOINT)
        self._commit(self._take_snapshot(), self._position, self._history.sync(), reason, is_final=is_final)
        self._saved_key = self._position.key()
        self._scores = {}
        self._last_save = LastSave(self._position.step, time.monotonic())
        self._beat(Phase.STEP)

    def _commit(
        self,
        snapshot: Snapshot,
        position: Position,
        history_bytes: int,
        reason: str,
        *,
        is_final: bool = False,
    ) -> None:
        self._checkpointer.write(
            snapshot,
            step=position.step,
            epoch=position.epoch,
            scores=self._scores,
            reason=reason,
            details=SaveDetails(
                job=self._environment.job or self._settings.run.root.name,
                attempt=self.attempt,
                batch=position.batch,
                history_bytes=history_bytes,
                world_size=self.world_size,
                is_final=is_final,
            ),
        )
        self._saves += 1

    def _take_snapshot(self) -> Snapshot:
        state = {
            "position": self._position.state_dict(),
            "seed": self._seed,
            "values": self._values.state_dict(),
            "rng": capture_rng(),
            "sources": {
                str(loop): source.state_dict()
                for loop, source in sorted(self._loop_sources.items())
                if isinstance(source, StatefulSource)
            },
        }
        return take_snapshot(self._objects, extra={"session": state})

    def _hold_snapshot(self) -> None:
        """Keep a copy of the boundary before an evaluation, in which there is none, for a drain that comes in it."""
        if self._held is None and self._saved_key != self._position.key():
            self._held = (
                self._take_snapshot().copied(),
                self._position.copied(),
                self._history.position_bytes,
            )

    # ------------------------------------------------------------------ resuming

    def _begin(self) -> None:
        if self._is_begun:
            return
        self._is_begun = True
        checkpoint = self._checkpointer.find()
        keep_bytes = 0
        if checkpoint is not None:
            tree = self._checkpointer.read(checkpoint, rank=self.rank)
            tree.apply(self._objects, source=checkpoint.name)
            self._checkpointer.adopt(checkpoint)
            self._restore_own(tree)
            keep_bytes = checkpoint.manifest.history_bytes
            self._resume_position = self._position.copied()
            self._restored = tree if self._position.is_inside_epoch() else None
            if self._restored is not None:
                self._position.loop = self._position.batch = 0
            self._saved_key = self._resume_position.key()
        self._settings.run.finished.unlink(missing_ok=True)
        self._history.begin(
            attempt=self.attempt,
            checkpoint=checkpoint.name if checkpoint else None,
            step=self.step,
            keep_bytes=keep_bytes,
        )
        self._last_save = LastSave(self.step, time.monotonic())
        self._resumed_step = self.step
        self._beat(Phase.START)
        RESTORED.hit()
        if checkpoint is None and self._settings.checkpoint.every.at_start:
            self._save("start")

    _resumed_step = _UNKNOWN

    def _restore_own(self, tree: StateTree) -> None:
        own = tree.extra["session"]
        self._position.load_state_dict(own["position"])
        self._seed = own["seed"]
        self._values.load_state_dict(own["values"])
        self._source_states = dict(own["sources"])
        self._evaluations = 0
        restore_rng(own["rng"])

    def _restore_at_loop(self) -> None:
        """Put everything back once more, now that the interrupted loop is reached.

        The code between the start of an epoch and its loop has run again. What it changed or drew was done
        before the checkpoint already, and is undone here.
        """
        tree, self._restored = self._restored, None
        assert tree is not None
        assert self.resumed_from is not None
        tree.apply(self._objects, source=self.resumed_from.name)
        self._restore_own(tree)

    def _source(self, loader: Any) -> Source:
        """Return the source of a loader, made at its first use: workers that persist, persist in it."""
        if id(loader) not in self._sources:
            self._sources[id(loader)] = source_for(loader, seed=self._seed, warn=self._warn_once)
            self._kept_alive.append(loader)  # or its id could pass to another
        return self._sources[id(loader)]

    # ------------------------------------------------------------------ leaving

    def _leave_drained(self) -> None:
        """Save, say so, and leave the process. Does not return."""
        self._is_leaving = True
        self._beat(Phase.DRAIN)
        if self._held is not None:
            snapshot, position, history_bytes = self._held
            self._history.sync()
            self._commit(snapshot, position, history_bytes, "drain")
        else:
            self._save("drain")
        newest = self._checkpointer.newest
        leaving.leave_drained(
            self._settings.attempt_paths.outcome(self.rank),
            step=newest.step if newest else self.step,
            checkpoint=newest.name if newest else None,
            reason=self._flag.reason,
        )

    def __enter__(self) -> Self:
        make_directory(self._settings.attempt_paths.root)
        self._checkpointer.open()
        self._flag.install()
        self._history = HistoryWriter(self._settings.run.metrics)
        self._heartbeat = HeartbeatWriter(self._settings.attempt_paths.heartbeat(self.rank))
        self._kept_alive: list[Any] = []
        if self._settings.seed is not None:
            seed_everything(self._settings.seed)
        self._beat(Phase.START)
        STARTED.hit()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_leaving = True
        try:
            if error is None:
                self._leave_normally()
            else:
                self._leave_with(error)
        finally:
            self._sources.clear()  # with them go their loaders, and workers that persist
            self._flag.remove()
            self._heartbeat.close()
            self._history.close()
            self._checkpointer.close()

    def _leave_normally(self) -> None:
        self._begin()
        if self._flag.is_set and self._position.epoch < self._epochs_total:
            self._leave_drained()  # the script broke off its loop because of the request
        self._save("final", is_final=True)
        COMPLETED.hit()
        newest = self._checkpointer.newest
        assert newest is not None
        leaving.record_finished(
            self._settings,
            step=self.step,
            epoch=self.epoch,
            checkpoint=newest.name,
            rank=self.rank,
        )
        self._beat(Phase.END)

    def _leave_with(self, error: BaseException) -> None:
        # Nothing is saved here: an exception may have come in the middle of a step.
        leaving.record_exception(
            self._settings.attempt_paths.outcome(self.rank), error, step=self.step if self._is_begun else None
        )

    # ------------------------------------------------------------------ small things

    def _write_row(self, batch: int) -> None:
        if self._row:
            place = {"step": self._position.step, "epoch": self._position.epoch, "batch": batch}
            self._history.row(place | self._row)
            self._row = {}

    def _beat(self, phase: Phase) -> None:
        position, newest = self._position, self._checkpointer.newest
        self._heartbeat.beat(
            phase,
            step=position.step,
            epoch=position.epoch,
            epochs=self._epochs_total,
            batch=position.batch,
            batches=self._batches_total,
            checkpoint_step=newest.step if newest else _UNKNOWN,
            loss=self._last_loss,
            saves=self._saves,
            resumed_step=self._resumed_step,
        )

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(f"trainerd: {message}", stacklevel=3)


def _as_number(name: str, value: Any) -> int | float:
    if isinstance(value, torch.Tensor):
        value = value.detach()
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UserError(f"log and report take numbers: {name}={value!r:.60} is none")
    return number
