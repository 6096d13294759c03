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
import warnings
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from trainerd.contract.durable import make_directory, translated_space_errors
from trainerd.contract.exit_codes import FAILED
from trainerd.contract.failpoints import declare
from trainerd.contract.heartbeat import HeartbeatWriter, Phase
from trainerd.contract.metric_history import encode_row
from trainerd.contract.policy import Cadence, KeepBest, KeepEvery
from trainerd.contract.request_page import RequestPage
from trainerd.errors import NonFiniteLossError, RankLostError, UserError
from trainerd.training.data.batch_wait import WaitInterruptedError
from trainerd.training.data.loop_end import was_left_on_purpose
from trainerd.training.data.sample_digest import folded_in
from trainerd.training.data.sharding import ShardPlan
from trainerd.training.data.sources import Pass, Source, source_for
from trainerd.training.distributed.agreement import Agreement, Alone, Together, WaysOut
from trainerd.training.distributed.rank_store import rendezvous
from trainerd.training.engine.checkpoint_manager import CheckpointManager
from trainerd.training.engine.run_state import RunState
from trainerd.training.interruption import leaving
from trainerd.training.interruption.deadline import DeadlineGuard, margin_s
from trainerd.training.interruption.drain_flag import DrainFlag
from trainerd.training.settings import DEFAULT_SEED, Settings, resolve_settings, same_attempt
from trainerd.training.state.rng import seed_everything
from trainerd.training.state.tracked import check_tracked
from trainerd.training.state.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from trainerd.checkpoint.store import Checkpoint

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

BETWEEN_SAVES_LIMIT_S: Final = 2.0
"""How long a thread that would save what is staged waits for the main thread to be between two saves, in seconds."""
FLUSH_ANSWER_LIMIT_S: Final = 10.0
"""How long ranks that are out of time wait to hear what the others hold, in seconds."""
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
        self._ranks = rendezvous(settings.environment)
        if self._ranks is not None:
            self._settings = settings = same_attempt(self._ranks, settings)
        self._state = RunState(
            DEFAULT_SEED if settings.seed is None else settings.seed,
            rank=self.rank,
            world_size=self.world_size,
        )
        self._manager = CheckpointManager(settings, self._state, attempt=self.attempt, ranks=self._ranks)
        self._flag = DrainFlag()
        self._agreement: Agreement = Together(self._ranks, self._flag) if self._ranks else Alone(self._flag)
        self._sources: dict[int, tuple[Any, Source]] = {}
        self._is_begun = False
        self._is_in_body = False
        self._is_leaving = False
        self._has_deadline = settings.grace_s is not None
        self._evaluations = 0
        self._epochs_total = _UNKNOWN
        self._batches_total = _UNKNOWN
        self._accumulate = 1
        self._resumed_step = _UNKNOWN
        self._in_hand: tuple[int, deque[Any]] | None = None  # how the loop goes whose batch the script has
        self._is_broken_off = False
        self._row: dict[str, Any] = {}
        self._last_loss = math.nan
        self._warned: set[str] = set()

    # ------------------------------------------------------------------ what a script reads

    @property
    def step(self) -> int:
        """Steps finished, over all attempts."""
        return self._state.position.step

    @property
    def epoch(self) -> int:
        """Epoch in progress, from 0."""
        return self._state.position.epoch

    @property
    def batch(self) -> int:
        """Number of the batch in hand within its loop, from 0. `enumerate` would begin anew with every attempt."""
        return self._state.position.batch

    @property
    def ends_step(self) -> bool:
        """Whether the batch in hand is the last one of its step, as ``batches(…, accumulate=k)`` has them."""
        done = self._state.position.batch + 1
        return done % self._accumulate == 0 or done == self._batches_total

    @property
    def attempt(self) -> int:
        """Which launch of this run this is, from 1."""
        return int(self._settings.attempt_paths.root.name)

    @property
    def resumed_from(self) -> Checkpoint | None:
        """The checkpoint this attempt went on from; None before `resume`, or if there was none."""
        return self._manager.checkpointer.resumed_from

    @property
    def draining(self) -> bool:
        """Whether somebody asked for a stop. With several ranks, once they have agreed to stop after this step."""
        return self._agreement.is_drain_near()

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
            if name in self._state.objects:
                raise UserError(f"{name!r} is tracked already")
            self._state.objects[name] = check_tracked(name, value)

    def value(self, name: str, default: Any) -> Value[Any]:
        """Return the box of a plain value that belongs to the state of the run; see `Value`."""
        return self._state.values.box(name, default)

    def log(self, **values: Any) -> None:
        """Note measurements of the step in progress: numbers, or tensors with one element.

        Raises:
            UserError: A value is not a number.
            NonFiniteLossError: `loss` is NaN or infinite, and the job's spec does not say to ignore that.
        """
        row = self._row
        for name, value in values.items():
            row[name] = value if type(value) is float else _as_number(name, value)
        if "loss" in values:
            self._last_loss = float(self._row["loss"])
            if not math.isfinite(self._last_loss) and self._environment.on_nonfinite_loss != "ignore":
                raise NonFiniteLossError(f"the loss after step {self.step} is {self._last_loss}")

    def report(self, **scores: Any) -> None:
        """Score the state as it is: ranks the checkpoint at the end of this epoch for best-k.

        Raises:
            UserError: A score is not a number.
        """
        self._begin()
        self._end_broken_loop()
        numbers = {name: float(_as_number(name, score)) for name, score in scores.items()}
        self._manager.scores |= numbers
        self._manager.history.row({"report": True, "step": self.step, "epoch": self.epoch, **numbers})

    def checkpoint_now(self) -> None:
        """Save at the next step boundary, whatever the cadence says."""
        self._manager.is_asked_to_save = True

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
        while self.epoch < total:
            self._batches_total = _UNKNOWN
            self._manager.stage("drain")
            self._beat(Phase.STEP)
            yield self.epoch
            self._end_broken_loop(is_over=True)
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
        self._end_broken_loop(is_over=train)
        return self._training_loop(loader, accumulate) if train else self._evaluation_loop(loader)

    def _training_loop(self, loader: Any, accumulate: int) -> Iterator[Any]:
        if self._manager.skips_loop():
            return
        position = self._state.position
        source = self._source(loader)
        self._manager.check_data(position.loop, source.extent())
        self._manager.restore_again()
        indices: deque[Any] = deque()
        hand = (accumulate, indices)
        which = Pass((_TRAINING, position.loop), position.epoch, self._shard_plan(), indices)
        total = source.length(which)
        self._batches_total = _UNKNOWN if total is None else total
        self._accumulate = accumulate
        self._state.use_source(position.loop, source)
        self._beat(Phase.STEP)
        iterator = source.iterate(which, position.batch, self._hears_drain)
        while True:
            if self._ranks is not None and not source.is_idle_at_boundary:
                self._enter_step()  # what may be decided while it waits would come too late
            found, batch = self._next_batch(iterator, is_at_boundary=source.is_idle_at_boundary)
            if not found:
                break
            self._enter_step()
            BATCH.hit()
            self._in_hand = hand
            try:
                yield batch
            except GeneratorExit:  # by a break, after which the batch counts, or by an exception
                self._is_broken_off = self._in_hand is hand
                if self._is_broken_off and was_left_on_purpose():
                    self._end_broken_loop()
                return
            self._in_hand = None
            self._end_batch(accumulate, indices, is_last=position.batch + 1 == total)
        if position.batch % accumulate and total is None:
            self._end_step(is_last_batch=True)
        self._is_in_body = False
        self._end_loop()

    def _evaluation_loop(self, loader: Any) -> Iterator[Any]:
        # Told apart by the boundary they come after: an attempt that begins there counts the same.
        which = Pass((_EVALUATION, self.step, self._evaluations), self.epoch)
        self._evaluations += 1
        self._beat(Phase.EVALUATION)
        iterator = self._source(loader).iterate(which, 0, self._hears_drain)
        while True:
            found, batch = self._next_batch(iterator)
            if not found:
                break
            yield batch
            self._beat(Phase.EVALUATION)
            EVALUATED.hit()
            self._answer()
        self._beat(Phase.STEP)

    def _next_batch(self, iterator: Iterator[Any], *, is_at_boundary: bool = True) -> tuple[bool, Any]:
        """Wait for a batch. A drain asked for in the meantime, or a loader that it broke, is a boundary."""
        try:
            found, batch = True, next(iterator)
        except StopIteration:
            return False, None
        except WaitInterruptedError:
            self._leave_drained()
        except Exception:
            if self._hears_drain():
                self._leave_drained()
            raise
        if is_at_boundary:
            self._answer()
        return found, batch

    def _hears_drain(self) -> bool:
        """Tell whether to leave here: asked to, and at a boundary, not within a step."""
        return not self._is_in_body and self._agreement.is_drain_due()

    def _answer(self) -> None:
        """Do what is asked for at this boundary: save it, or save and leave. Nothing, within a step."""
        if self._is_in_body:
            return
        for decision in self._agreement.settle():
            if decision.action == "drain":
                self._leave_drained(decision.reason)
            if decision.action == "stage":
                self._manager.stage(decision.reason)
            else:
                self._manager.save_here(decision.reason)

    def _enter_step(self) -> None:
        """The body of a step begins, or the next batch of one."""
        while not self._is_in_body and not self._agreement.enter():
            self._answer()
        self._is_in_body = True

    def _cross(self, *, is_last: bool = False) -> None:
        """Cross to the next boundary. What was asked for at the former one is done first."""
        while not self._agreement.cross(is_last=is_last):
            self._answer()
        self._is_in_body = False

    def _end_batch(self, accumulate: int, indices: deque[Any], *, is_last: bool) -> None:
        if indices:
            self._state.digest = folded_in(self._state.digest, indices.popleft())
        self._state.position.batch += 1
        if is_last or self._state.position.batch % accumulate == 0:
            self._end_step(is_last_batch=is_last)

    def _end_broken_loop(self, *, is_over: bool = False) -> None:
        """A loop that was left in the middle ends, unless that was done. One that raised, and was caught, too.

        Args:
            is_over: Whether it cannot be going on where this is called, though its iterator is still there.
        """
        if self._in_hand is not None and (is_over or self._is_broken_off) and not self._is_leaving:
            (accumulate, indices), self._in_hand = self._in_hand, None
            self._is_broken_off = False
            self._end_batch(accumulate, indices, is_last=True)
            self._end_loop()

    def _end_loop(self) -> None:
        # What the script does next, such as a scheduler's step or a validation, comes after this boundary and
        # before the next one: a drain in it goes back to here, so that nothing of it is done twice.
        self._cross()
        self._state.position.end_loop()
        self._manager.stage("drain")

    def _end_step(self, *, is_last_batch: bool) -> None:
        self._cross()
        position = self._state.position
        position.step += 1
        self._evaluations = 0
        self._write_row(position.batch - 1)
        self._beat(Phase.STEP)
        STEPPED.hit()
        if self._requests.take_checkpoint_request():
            self.checkpoint_now()
        if reason := self._manager.due_after_step(is_last_batch=is_last_batch):
            self._beat(Phase.CHECKPOINT)
            self._manager.save_if_free(reason)
            self._beat(Phase.STEP)
        if request := self._manager.request_after_step():
            self._agreement.request("save", request)
        elif self._has_deadline and self.rank == 0 and self._ranks and self._manager.is_staging_cheap():
            self._agreement.request("stage", "flushed")  # all of them at one boundary, or none could be saved
        self._answer()
        self._manager.prepare()
        if self._has_deadline and self._ranks is None:
            self._manager.stage_if_cheap("flushed")

    def _end_epoch(self) -> None:
        self._cross(is_last=self.epoch + 1 >= self._epochs_total)
        self._state.position.end_epoch()
        self._evaluations = 0
        self._manager.forget_pending()
        self._write_row(0)
        if reason := self._manager.due_after_epoch():
            self._beat(Phase.CHECKPOINT)
            self._manager.save(reason)
        self._manager.scores = {}
        self._beat(Phase.STEP)
        EPOCH_ENDED.hit()
        if self.epoch < self._epochs_total:
            self._answer()

    def _shard_plan(self) -> ShardPlan:
        """Return which of the batches of the loop that begins are this rank's."""
        position = self._state.position
        return ShardPlan(self.rank, self.world_size, position.resharded_at, position.resharded_after)

    def _source(self, loader: Any) -> Source:
        """Return the source of a loader, made at its first use: workers that persist, persist in it."""
        if id(loader) not in self._sources:  # the loader is kept with it, or its id could pass to another
            self._sources[id(loader)] = (
                loader,
                source_for(loader, seed=self._state.seed, warn=self._warn_once),
            )
        return self._sources[id(loader)][1]

    # ------------------------------------------------------------------ beginning and leaving

    def _begin(self) -> None:
        if self._is_begun:
            return
        self._is_begun = True
        checkpoint = self._manager.restore()
        self._resumed_step = self.step
        self._agreement.start(
            WaysOut(self._leave_here, self._leave_with_what_all_hold, self._fail_from_elsewhere)
        )
        self._beat(Phase.START)
        RESTORED.hit()
        if checkpoint is None and self._settings.checkpoint.every.at_start:
            self._manager.save("start")

    def _leave_drained(self, reason: str | None = None) -> NoReturn:
        """Save, say so, and leave the process."""
        self._is_leaving = True
        self._beat(Phase.DRAIN)
        self._manager.save_now("drain")
        self._manager.end_proof()
        newest = self._manager.newest
        self._leave_ranks()
        leaving.leave_drained(
            self._settings.attempt_paths.outcome(self.rank),
            step=newest.step if newest else self.step,
            checkpoint=newest.name if newest else None,
            reason=reason or self._flag.reason,
        )

    def _flush_alone(self, why: str) -> None:
        self._flush_and_leave(f"{self._flag.reason or 'asked to stop'}, {why}")

    def _flush_and_leave(self, reason: str) -> None:
        """Make what is in memory durable and leave the process, from a thread that watches or listens."""
        try:
            newest = self._manager.flush()
        except Exception as error:  # noqa: BLE001 - the process ends here in any case, and says why
            self._fail_from_elsewhere(error)
        self._leave_from_elsewhere(newest, reason)

    def _leave_here(self, reason: str) -> None:
        """Save the boundary crossed last, as the other ranks do, while the script's own code holds up the main thread."""
        with self._manager.between_saves(BETWEEN_SAVES_LIMIT_S) as staged:
            if self._is_leaving or staged is None:
                return  # the main thread is on its way out
            if not self._manager.is_safe_here():
                self._fail_from_elsewhere(RankLostError(f"{reason}, and this rank has nothing to save yet"))
            self._flush_and_leave(f"{reason}, and the script was busy between two loops")

    def _leave_with_what_all_hold(self, reason: str) -> None:
        """Save the boundary that all ranks hold, if it is the same one, while their main threads are elsewhere."""
        assert self._ranks is not None
        with self._manager.between_saves(BETWEEN_SAVES_LIMIT_S) as staged:
            all_hold = self._ranks.gather("flush/holds", staged, limit_s=FLUSH_ANSWER_LIMIT_S)
            if staged is not None and all(each == staged for each in all_hold):
                self._flush_and_leave(reason)
            leaving.say(f"trainerd: the ranks hold no boundary in common ({all_hold}): nothing more is saved")
            self._leave_from_elsewhere(self._manager.newest, reason)

    def _leave_from_elsewhere(self, newest: Checkpoint | None, reason: str) -> NoReturn:
        self._leave_ranks()
        leaving.leave_drained(
            self._settings.attempt_paths.outcome(self.rank),
            step=newest.step if newest else self.step,
            checkpoint=newest.name if newest else None,
            reason=reason,
        )

    def _fail_from_elsewhere(self, error: Exception) -> NoReturn:
        leaving.say(f"trainerd: {type(error).__name__}: {error}: exiting {FAILED}")
        if self._ranks is not None:
            self._ranks.say_failed(error)
        leaving.record_exception(self._settings.attempt_paths.outcome(self.rank), error, step=self.step)
        leaving.exit_process(FAILED)

    def __enter__(self) -> Self:
        try:
            self._enter()
        except BaseException as error:  # a `with` calls no __exit__ then
            self._flag.remove()
            if self._ranks is not None:
                self._ranks.say_failed(error)
            leaving.record_exception(self._settings.attempt_paths.outcome(self.rank), error, step=None)
            raise
        STARTED.hit()
        return self

    def _enter(self) -> None:
        make_directory(self._settings.attempt_paths.root)
        self._manager.open()
        leaving.end_workers_at_exit()
        leaving.show_stacks_when_asked()
        self._flag.install()
        if self._flag.notices is not None:
            DeadlineGuard(
                self._flag.notices,
                grace_s=self._settings.grace_s,
                heard=lambda number: self._flag.ask(number.name),
                margin=lambda grace_s: margin_s(grace_s, self._manager.longest_save_s),
                flush=self._agreement.leave_without_boundary if self._ranks else self._flush_alone,
            )
        with translated_space_errors(self._settings.attempt_paths.root):
            self._heartbeat = HeartbeatWriter(self._settings.attempt_paths.heartbeat(self.rank))
            self._requests = RequestPage(self._settings.attempt_paths.requests)
        if self._settings.seed is not None:
            seed_everything(self._settings.seed)
        self._beat(Phase.START)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._end_broken_loop(is_over=True)
            self._is_leaving = True
            if error is None:
                self._leave_normally()
            else:
                # Nothing is saved here: an exception may have come in the middle of a step.
                self._agreement.stop()
                if self._ranks is not None:
                    error = self._ranks.cause_of(error)
                    self._ranks.say_failed(error)
                outcome = self._settings.attempt_paths.outcome(self.rank)
                leaving.record_exception(outcome, error, step=self.step if self._is_begun else None)
        finally:
            self._sources.clear()  # with them go their loaders, and workers that persist
            self._state.loop_sources.clear()
            self._flag.remove()
            self._heartbeat.close()
            self._requests.close()
            self._manager.close()

    def _leave_normally(self) -> None:
        self._begin()
        if self._ranks is not None:
            self._cross(is_last=True)
        elif self._flag.is_set and self.epoch < self._epochs_total:
            self._leave_drained()  # the script broke off its loop because of the request
        self._beat(Phase.CHECKPOINT)
        newest = self._manager.finish()
        COMPLETED.hit()
        leaving.record_finished(
            self._settings, step=self.step, epoch=self.epoch, checkpoint=newest.name, rank=self.rank
        )
        self._beat(Phase.END)
        self._leave_ranks()

    def _leave_ranks(self) -> None:
        """Stop answering the other ranks. The last save, in which all took part, has shown that none will ask."""
        self._agreement.stop()
        if self._ranks is not None:
            self._ranks.leave()

    # ------------------------------------------------------------------ small things

    def _write_row(self, batch: int) -> None:
        if self._row:
            position = self._state.position
            digest = f"{self._state.digest:016x}" if self._state.digest else None
            line = encode_row(position.step, position.epoch, batch, self._row, digest)
            self._manager.history.line(line)
            proof = self._manager.proof
            if proof is not None and not proof.is_over:
                proof.compare((position.step, position.epoch, batch), digest, self._row)
            self._row = {}

    def _beat(self, phase: Phase) -> None:
        position, newest = self._state.position, self._manager.newest
        self._heartbeat.beat(
            phase,
            step=position.step,
            epoch=position.epoch,
            epochs=self._epochs_total,
            batch=position.batch,
            batches=self._batches_total,
            checkpoint_step=newest.step if newest else _UNKNOWN,
            loss=self._last_loss,
            saves=self._manager.saves,
            resumed_step=self._resumed_step,
        )

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(f"trainerd: {message}", stacklevel=3)


def _as_number(name: str, value: Any) -> int | float:
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UserError(f"log and report take numbers: {name}={value!r:.60} is none")
    return number
