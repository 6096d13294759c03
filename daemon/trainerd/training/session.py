"""The training session: an ordinary loop that can be killed at any moment and goes on where it was.

with trainerd.session() as session:
    session.track(model=model, optimizer=optimizer)
    for epoch in session.epochs(10):
        for images, targets in session.batches(train_loader):
            ...
            session.log(loss=loss)
        session.report(accuracy=evaluate(model))
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Self, TypeVar

from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.safe_text import safe_text
from trainerd.errors import UserError
from trainerd.training import loop_misuse
from trainerd.training.batch_loops import BatchLoops
from trainerd.training.data.replica_place import StatedSharding
from trainerd.training.drive import Drive
from trainerd.training.engine.run_engine import RunEngine
from trainerd.training.engine.run_parts import RunParts
from trainerd.training.epoch_loops import EpochLoops
from trainerd.training.interruption import leaving
from trainerd.training.interruption.departure import DEPARTURE
from trainerd.training.interruption.drain_flag import REASON_CHARACTERS_MAX
from trainerd.training.interruption.forked_children import forget_in_children
from trainerd.training.settings import DEFAULT_SEED, Settings, resolve_settings
from trainerd.training.state.tensor_layouts import TensorTable
from trainerd.training.state.tensors import encode_state
from trainerd.training.state.values import Variables
from trainerd.training.trackers import tracker_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from torch.distributed.device_mesh import DeviceMesh

    from trainerd.checkpoint.store import Checkpoint
    from trainerd.contract.policy import Cadence, KeepBest, KeepEvery
    from trainerd.training.batch_iterator import BatchIterator
    from trainerd.training.engine.history import HistoryFollower
    from trainerd.training.state.values import Value


def session(
    run_dir: str | Path | None = None,
    *,
    run: str | None = None,
    fresh: bool = False,
    seed: int | None = DEFAULT_SEED,
    every: Mapping[str, Any] | Cadence | None = None,
    keep_last: int | None = 3,
    keep_best: KeepBest | Mapping[str, Any] | Sequence[KeepBest | Mapping[str, Any]] | None = None,
    keep_every: KeepEvery | Mapping[str, Any] | None = None,
    mirror: str | None = None,
    memory: str = "off",
    grace_s: float | None = None,
    uncompared: Sequence[str] = (),
    strict: bool = True,
    signals: bool = True,
    trackers: Sequence[str] = (),
) -> Session:
    """Open a training session.

    Under a supervisor, everything that the session needs is in the environment, and the job's spec wins over
    the arguments. Without a supervisor, starting the same script again with the same arguments continues its
    run, which is kept in ``.trainerd/runs`` of the folder in which the script was started. ``$TRAINERD_RUN``
    and `run` name another run, ``$TRAINERD_RUN_DIR`` and `run_dir` another folder.

    Args:
        run_dir: The run folder.
        run: Name of the run: it is the same whatever the arguments.
        fresh: Begin a new run. The one that is there is moved aside. ``$TRAINERD_FRESH`` set to 1 says the
            same.
        seed: Seeds Python's, NumPy's and torch's generators at the start of a run, and the order of the data.
            None leaves the generators as the script has them.
        every: When to checkpoint, whichever comes first: ``{"steps": 200, "seconds": 300, "epochs": 1}``.
            ``{"auto": True}`` computes the interval from the cost of a save and the failures of the run, by
            equation 37 of Daly, "A higher order estimate of the optimum checkpoint interval for restart
            dumps" (2006).
        keep_last: How many of the newest checkpoints to keep; None keeps all.
        keep_best: Which to keep by score besides: ``KeepBest("accuracy", n=2)``, or as in a spec
            ``{"metric": "accuracy", "n": 2}``, or a list of these.
        keep_every: Which to keep for good besides: ``KeepEvery(epochs=10)`` or ``{"epochs": 10}``.
        mirror: URL of another place, of any kind that fsspec knows, such as ``s3://bucket/runs``. Each
            checkpoint is copied there in the background, into the folder of the run's name, and a machine
            with an empty disk goes on from there.
        memory: ``auto`` keeps copies of the newest boundary in memory, as often as that costs next to
            nothing. If the process is killed, the next attempt goes on from there. They do not survive the
            machine, and are kept only where one rank trains.
        grace_s: Seconds from a request to stop until the process is killed, if known.
        uncompared: Names of logged numbers that differ by their nature, such as ``images_per_s``, and of
            state such as ``values.elapsed_s``: shell patterns. After a resume all others are compared.
        strict: Whether the first step of each attempt raises a `UserError` if something that decides the rest
            of the run is not tracked. False trains on, and the resume is called suspect.
        signals: Whether the session takes the signals that ask for a stop. If not, the caller hears them and
            calls ``session.ask_to_stop``, or ``session.take_signals`` later.
        trackers: Experiment trackers that get what is logged and reported: ``tensorboard``, ``wandb``,
            ``mlflow``. What the job's spec says wins, as with all settings.

    Raises:
        UserError: A setting is not valid, or the environment does not say where the ranks meet.
        LockedError: `fresh` is set, and another process trains the run.
        RankLostError: Other ranks did not arrive.
        SystemExit: A session of this process has drained, and the process is to end.
    """
    leaving.show_user_errors_without_traceback()
    if DEPARTURE.is_begun:
        raise SystemExit(DRAINED)
    return Session(
        resolve_settings(
            run_dir=run_dir,
            run=run,
            fresh=fresh,
            seed=seed,
            every=every,
            keep_last=keep_last,
            keep_best=keep_best,
            keep_every=keep_every,
            mirror=mirror,
            memory=memory,
            grace_s=grace_s,
            uncompared=uncompared,
            strict=strict,
            signals=signals,
            trackers=trackers,
        )
    )


_Kind = TypeVar("_Kind", bound="Session")


def open_session(make: Callable[[Settings], _Kind], run_dir: str | Path | None, **settings: Any) -> _Kind:
    """Open a session of another kind, with the settings of `session` and its defaults.

    Args:
        make: Makes it.
        run_dir: As `session` takes it.
        settings: As `session` takes them.

    Raises:
        UserError: There is no such setting, or a setting is not valid.
        SystemExit: A session of this process has drained, and the process is to end.
    """
    leaving.show_user_errors_without_traceback()
    if DEPARTURE.is_begun:
        raise SystemExit(DRAINED)
    try:
        bound = inspect.signature(session).bind(run_dir, **settings)
    except TypeError as error:
        raise UserError(f"session(): {error}") from None
    bound.apply_defaults()
    return make(resolve_settings(**bound.arguments))


def driven(run_dir: str | Path | None = None, **settings: Any) -> Drive:
    """Open a session for a framework whose hooks have no ``with`` block, and return its drive.

    `Drive.finish`, `Drive.leave` and `Drive.fail` close the session, which is ``drive.session``.

    Args:
        run_dir: As `session` takes it.
        settings: As `session` takes them.

    Raises:
        UserError: There is no such setting, a setting is not valid, or the run cannot be opened.
        LockedError: Another process trains the run.
        RankLostError: Other ranks did not arrive.
        SpaceError: The disk is full or read-only.
        SystemExit: A session of this process has drained, and the process is to end.
    """
    opened = session(run_dir, **settings)
    opened.__enter__()
    return opened.drive()


class Session:
    """Attempt at a run: restores, drives and saves the training loop.

    Made by `session`, and used as a context manager. Steps, epochs and batches are counted from 0.

    Raises:
        UserError: A method is called outside of the ``with`` block or in a forked child; or training shows
            state that is not tracked.
        LockedError: The block is entered while another process trains the run.
        RankLostError: Another rank has ended, or does not answer within a limit.
        FencedError: Another attempt has taken over the run. Nothing more is saved.
        SpaceError: The disk is full or read-only; earlier checkpoints are unchanged.
        SystemExit: The run was drained. Raised with code 85 at a boundary, and by each later call.
    """

    def __init__(self, settings: Settings) -> None:
        self._trackers = tracker_calls(settings.trackers)
        self._run = RunParts.meet(settings)
        self._engine = RunEngine(self._run)
        self._loops = BatchLoops(self._engine)
        self._epoch_loops = EpochLoops(self._engine, self._loops)
        self._is_open = self._is_over = self._is_forked = False
        self._drive: Drive | None = None
        forget_in_children(self)

    def forget_in_child(self) -> None:
        """Let a forked child have no session: it belongs to the process that opened it."""
        self._is_forked = True
        self._is_open = False

    # ------------------------------------------------------------------ what a script reads

    @property
    def step(self) -> int:
        """Number of finished steps, over all attempts."""
        return self._run.state.position.step

    @property
    def epoch(self) -> int:
        """Number of the epoch in progress, from 0."""
        return self._run.state.position.epoch

    @property
    def batch(self) -> int:
        """Number of the current batch within its loop, from 0.

        `enumerate` would start from 0 in every attempt.
        """
        return self._run.state.position.batch

    @property
    def ends_step(self) -> bool:
        """Whether the batch in hand is the last one of its step, as ``batches(…, accumulate=k)`` has them."""
        return self._loops.ends_step

    @property
    def attempt(self) -> int:
        """Number of this attempt at the run, from 1."""
        return self._run.settings.attempt

    @property
    def resumed_from(self) -> Checkpoint | None:
        """The checkpoint this attempt went on from; None before `resume`, or if there was none."""
        return self._run.checkpoints.lineage.resumed_from

    @property
    def draining(self) -> bool:
        """Whether a stop was asked for. With several ranks, once they have agreed to stop after this step."""
        is_near = self._run.agreement.is_drain_near()
        self._engine.has_told_drain = self._engine.has_told_drain or is_near
        return is_near

    @property
    def rank(self) -> int:
        """Rank of this process, from 0 to ``world_size - 1``."""
        return self._run.settings.environment.rank

    @property
    def world_size(self) -> int:
        """Number of processes that train together."""
        return self._run.settings.environment.world_size

    @property
    def run_dir(self) -> Path:
        """The run folder: checkpoints, metric history, and room for the script's own files."""
        return self._run.settings.run.root

    # ------------------------------------------------------------------ what a script says

    def track(self, **objects: Any) -> None:
        """Add objects to the state of the run.

        Args:
            objects: Models, optimizers, schedulers, and anything else with ``state_dict`` and
                ``load_state_dict``, by name.

        Raises:
            UserError: An object has no state, a name is taken, or training has begun already.
        """
        self._check_not_over()
        if self._engine.is_begun:
            raise UserError(
                "track() comes before the first epoch or batch: what is added later was not restored"
            )
        for name, value in objects.items():
            if name in self._run.state.objects:
                raise UserError(f"{name!r} is tracked already")
            self._run.state.objects.track(name, value)

    def value(self, name: str, default: Any) -> Value[Any]:
        """Return the box of a plain value that belongs to the state of the run; see `Value`.

        Args:
            name: Its name; the same name is the same box.
            default: Its first value: a number, string, tensor or array, or a list, tuple or dict of these.

        Raises:
            UnsupportedValueError: A checkpoint cannot represent the first value.
        """
        if name not in self._run.state.values.state_dict():
            encode_state(default, TensorTable(), root=f"values.{name}")
        return self._run.state.values.box(name, default)

    def variables(self, **first: Any) -> Variables:
        """Return a namespace of plain values that belong to the state of the run; see `Variables`.

        ``carry = session.variables(total=0.0, hidden=None)``, then ``carry.total += loss``. Each is the value
        that ``session.value`` has under the same name.

        Args:
            first: Name and first value of each.

        Raises:
            UnsupportedValueError: A checkpoint cannot represent a first value.
        """
        return Variables({name: self.value(name, value) for name, value in first.items()})

    def log(self, **values: Any) -> None:
        """Note measurements of the step in progress, a row of the metric history.

        A value of a CUDA tensor is read when it has arrived on the host, without waiting for the device.

        Args:
            values: Numbers by name, or tensors with one element, of any device.

        Raises:
            UserError: A value is not a number.
            NonFiniteLossError: `loss` is NaN or infinite, and ``on_nonfinite_loss`` in the job's spec is
                ``stop`` or ``rollback``. Raised by a later call, if the value arrives later.
        """
        if not self._is_open or self._run.exit.is_left:
            self._check_open()
        loop_misuse.check_log(self._loops.thread)
        self._run.measurements.note(values)
        if self._run.score_watch.missing:
            self._run.score_watch.logged(values)

    def report(self, **scores: Any) -> None:
        """Score the state as it is: ranks the checkpoint at the end of this epoch for best-k.

        Args:
            scores: Numbers by name, such as the metric that `keep_best` names.

        Raises:
            UserError: A score is not a number.
        """
        if self._drive is None:
            self._begin()
            self._loops.end_broken_loop()
        else:
            self._check_open()
        found = self._run.measurements.scores_of(scores)
        self._run.score_watch.reported(scores)
        if self._run.resume.is_replaying:
            return  # reported before, by an earlier attempt
        self._run.saves.scores |= found
        self._run.measurements.report(found, self._run.evidence.reported)

    def checkpoint_now(self) -> None:
        """Save at the next step boundary, whatever the cadence says."""
        self._check_open()
        if not self._run.resume.is_replaying:
            self._run.saves.is_asked = True

    def ask_to_stop(self, reason: str) -> None:
        """Ask for a drain: the next boundary is saved, and the process leaves with exit code 85.

        May be called from any thread. In a session with ``signals=False`` the grace period begins with it: if
        no boundary comes in time, the newest one that is held in memory is saved.

        Args:
            reason: Why, for the log and the record of the attempt.
        """
        self._run.flag.ask_as_caller(
            safe_text(str(reason), characters_max=REASON_CHARACTERS_MAX) or "asked to stop"
        )

    def on_leave(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Call `function` when the process leaves because a stop was asked for; also usable as a decorator.

        It is called after the checkpoint is durable, in a thread of its own. All functions together have 5 s,
        or what is left of the grace period, and 1 s if the process has to end at once.

        Args:
            function: Takes no arguments; what it returns or raises changes nothing.

        Raises:
            UserError: `function` is not callable.
        """
        if not callable(function):
            raise UserError(f"on_leave({function!r:.80}): not a function")
        self._run.exit.last_words.add(function)
        return function

    def follow_history(self, follower: HistoryFollower) -> None:
        """Pass each line of the metric history to a follower, on rank 0: for trackers.

        Args:
            follower: Its method ``line`` gets each line, as bytes, once the line is written.

        Raises:
            UserError: Training has begun already.
        """
        self._check_open()
        if self._engine.is_begun:
            raise UserError("a tracker comes before the first epoch or batch: it would miss points")
        self._run.history.follow(follower)

    def take_signals(self) -> None:
        """Take the signals that ask for a stop, again if a library has put handlers of its own over ours."""
        self._check_open()
        self._run.flag.take()

    def hand_over_signals(self) -> bool:
        """Give the signals back to the handlers that were there before, until `take_signals`.

        Returns:
            Whether the session had them: not if it was opened with ``signals=False``.
        """
        self._check_open()
        return self._run.flag.hand_over()

    # ------------------------------------------------------------------ the loop of a framework

    def drive(self) -> Drive:
        """Return what drives the run for a framework, which has the loop; see `Drive`.

        Raises:
            UserError: The session's own loops have begun.
        """
        self._check_open()
        if self._drive is None:
            if self._engine.is_begun:
                raise UserError("drive() comes before the session's own loops, and instead of them")
            self._drive = Drive(self, self._engine)
        return self._drive

    def length(self, loader: Any) -> int | None:
        """Return how many batches an epoch of a loader has in this session, None if that is not known.

        With several ranks that is the share of this rank.

        Args:
            loader: As `batches` takes it.
        """
        self._check_open()
        return self._loops.length(loader)

    # ------------------------------------------------------------------ the loop

    def resume(self) -> Checkpoint | None:
        """Restore the newest checkpoint that verifies. Done by the first `epochs` or `batches` if not before.

        What the script changes after it is kept where the run goes on between two epochs: another learning
        rate, say.

        Raises:
            MismatchError: It is sound and does not fit what is tracked; nothing was changed.
            UserError: A lazy module has not seen a batch, or a framework drives the run.
        """
        self._begin()
        self._run.resume.keep_changes()
        return self.resumed_from

    def epochs(self, total: int | None, *, max_steps: int | None = None) -> Iterator[int]:
        """Yield the numbers of the epochs that are left, beginning with the one that was interrupted.

        Args:
            total: Number of epochs; None goes on until `max_steps`, or until the script leaves the loop.
            max_steps: Steps after which the run is over: the loop over batches ends with that step, and the
                loop over epochs with its epoch.

        Raises:
            UserError: `max_steps` is less than 1.
            MismatchError: At the first epoch, if the newest checkpoint does not fit what is tracked; nothing
                was changed.
        """
        self._check_open()
        if max_steps is not None and max_steps < 1:
            raise UserError(f"max_steps={max_steps}: a run has at least 1 step")
        self._run.caller_check.loop_opened()
        return self._epoch_loops.train(total, max_steps)

    def batches(
        self,
        *loaders: Any,
        train: bool = True,
        accumulate: int = 1,
        mesh: DeviceMesh | None = None,
        dp_rank: int | None = None,
        dp_size: int | None = None,
    ) -> BatchIterator:
        """Return the batches that are left of the next loop over a loader.

        It has a ``len()`` if the loader has one.

        Args:
            loaders: A `DataLoader`, something with a state of its own, or any iterable that can be begun
                again. From several, tuples are drawn in step, until the shortest is exhausted.
            train: Whether the loop trains. One that does not is not resumed in the middle, makes no steps,
                and is where a request to stop is heard too.
            accumulate: Every so many batches make one step; the last batch of the loop always ends one.
            mesh: Over which of several ranks the batches are dealt: the data-parallel part of a `DeviceMesh`,
                ``mesh["dp"]``, or all of it, if the names of its dimensions tell which of them are. Ranks
                that differ in other dimensions get the same batches. Where neither this nor `dp_size` is
                given, the meshes of the tracked models decide.
            dp_rank: The same without a mesh: number of the replica that this rank belongs to, from 0.
            dp_size: How many replicas there are.

        Raises:
            UserError: `accumulate` is less than 1, there is no loader, or one is there twice; it is not known
                which ranks get the same batches, or ranks that compute a step together would get different
                batches. In the iteration, if a second loop that trains was opened within the loop.
            MismatchError: The newest checkpoint does not fit what is tracked; nothing was changed. Or an
                epoch continues in the middle, and its data has another length than before.
        """
        sharding = StatedSharding(mesh, dp_rank, dp_size)
        return self._batches(loaders, sharding, train=train, accumulate=accumulate, is_numbered=False)

    def enumerate(
        self,
        *loaders: Any,
        train: bool = True,
        accumulate: int = 1,
        mesh: DeviceMesh | None = None,
        dp_rank: int | None = None,
        dp_size: int | None = None,
    ) -> BatchIterator:
        """Return what `batches` does, each batch with its number within the loop, counted over all attempts.

        ``for number, batch in session.enumerate(loader)`` has the numbers that ``enumerate(loader)`` would
        have in a run without interruption.

        Args:
            loaders: As `batches` takes them.
            train: As `batches` takes it.
            accumulate: As `batches` takes it.
            mesh: As `batches` takes it.
            dp_rank: As `batches` takes it.
            dp_size: As `batches` takes it.

        Raises:
            UserError: As `batches` raises it.
            MismatchError: As `batches` raises it.
        """
        sharding = StatedSharding(mesh, dp_rank, dp_size)
        return self._batches(loaders, sharding, train=train, accumulate=accumulate, is_numbered=True)

    def steps(self, total: int) -> BatchIterator:
        """Return the numbers that are left of a loop that has `total` steps and no loader.

        The script makes its batches itself: whatever it draws from the global generators is resumed exactly.

        Args:
            total: Number of steps of the loop.

        Raises:
            UserError: `total` is negative.
            MismatchError: The newest checkpoint does not fit what is tracked; nothing was changed.
        """
        if total < 0:
            raise UserError(f"steps({total}): not a non-negative integer")
        self._run.caller_check.loop_opened()
        self._begin()
        self._loops.end_broken_loop()
        return self._loops.count(total)

    def _batches(
        self,
        loaders: tuple[Any, ...],
        sharding: StatedSharding,
        *,
        train: bool,
        accumulate: int,
        is_numbered: bool,
    ) -> BatchIterator:
        if not train and not sharding.is_empty:
            raise UserError(
                "batches(train=False, mesh=…): a loop that does not train is not dealt: each rank gets "
                "all that its loader yields",
                hint="leave mesh=, dp_rank= and dp_size= out, or give the loader a DistributedSampler",
            )
        if accumulate < 1:
            raise UserError(f"accumulate={accumulate}: at least 1 batch makes a step")
        self._run.caller_check.loop_opened()
        self._begin()
        self._loops.end_broken_loop()
        if not train:
            return self._loops.evaluate(loaders, is_numbered=is_numbered)
        return self._loops.train(loaders, sharding, accumulate, is_numbered=is_numbered)

    # ------------------------------------------------------------------ the block

    def __enter__(self) -> Self:
        if self._is_open:
            raise UserError("the session is open already: one with block is one attempt")
        self._check_not_over()
        self._engine.open()
        self._is_open = True
        try:
            for follow in self._trackers:
                follow(self)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_forked:
            return
        if self._is_over:  # the drive has ended it
            if error is None or isinstance(error, Exception):
                self._run.exit.raise_if_left()
            return
        try:
            if self._run.exit.is_left:
                if error is None or isinstance(error, Exception):
                    self._run.exit.raise_if_left()
            elif self._drive is not None and self._drive.is_over:
                return
            elif self._drive is not None and error is None:
                self._drive.end_block()
            elif error is None:
                self._epoch_loops.end_all()
                self._engine.finish()
            else:
                if self._engine.is_begun and self._run.resume.position.is_inside_epoch():
                    loop_misuse.explain(error, self._run.resume.position)
                self._engine.fail(error)
        finally:
            self._is_open, self._is_over = False, True
            if self._drive is not None:
                self._drive.close()
            self._loops.close()
            self._engine.close()

    def _begin(self) -> None:
        self._check_open()
        if self._drive is not None:
            raise UserError("this run is driven by a framework: it has the loop, and not the session")
        if not self._engine.is_begun:
            self._engine.begin()
            self._engine.stage_beginning()

    def _check_open(self) -> None:
        self._check_not_over()
        self._run.exit.raise_if_left()
        if not self._is_open:
            raise UserError(
                "the session is not open", hint="use it in a block: with trainerd.session() as session: ..."
            )

    def _check_not_over(self) -> None:
        if self._is_forked:
            raise UserError(
                "this process was forked from the one that opened the session",
                hint="return results to that process, and let it call the session",
            )
        if self._is_over:
            raise UserError(
                "the session is over: its with block has ended",
                hint="move this into the block, or open another session",
            )
