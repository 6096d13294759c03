"""A run whose loop belongs to a framework: the framework tells what is done, and the engine does the rest.

    drive = session.drive()
    place = drive.begin()
    for epoch in range(place.epoch, epochs):
        for batch in …:                       from number place.batch on
            drive.step_done(step, epoch, batch, is_last)
        drive.epoch_done(epoch)
    drive.finish()

`docs/integrations.md` says what an integration must do.

Invariants:
    Each of the calls that end in ``_done`` is a boundary: the state is captured there and nowhere else.
    What runs between the last step of an epoch and `epoch_done` belongs to the end of the epoch: a drain in
    it goes back to the last step, and the resumed run does it again.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from trainerd.errors import UserError
from trainerd.training.data.feed import Feed
from trainerd.training.engine.supervisor_link import UNKNOWN

if TYPE_CHECKING:
    from typing import NoReturn

    from trainerd.contract.verdict import Reason
    from trainerd.training.engine.run_engine import RunEngine
    from trainerd.training.session import Session


@dataclass(frozen=True)
class DrivenPlace:
    """Where a driven run begins.

    Attributes:
        step: Steps finished.
        epoch: Epoch in progress, from 0.
        batch: Batches of it that are finished.
        is_epoch_trained: Whether all of them are, and what is left of the epoch is the work at its end.
        is_resumed: Whether a checkpoint was restored.
        is_finished: Whether the run was finished before.
    """

    step: int
    epoch: int
    batch: int
    is_epoch_trained: bool
    is_resumed: bool
    is_finished: bool


class Drive:
    """Driver of one attempt for a framework that has the loop. Made by `Session.drive`.

    Args:
        session: The session: what is tracked, logged, reported and asked for.
        engine: The life of the run.

    Attributes:
        session: The session.
        is_over: Whether the run was finished or has failed.
    """

    def __init__(self, session: Session, engine: RunEngine) -> None:
        self.session = session
        self.is_over = False
        self._engine = engine
        self._is_begun = self._is_epoch_open = False
        self._feeds: list[Feed] = []
        engine.run.resume.keeps_state = True

    # ------------------------------------------------------------------ the beginning

    def saved_state(self, name: str) -> Any:
        """Return the state that an object has in the checkpoint that `begin` will restore, None if none.

        So a framework can be told where to begin before its model and its optimizer exist.

        Args:
            name: Name under which the object is tracked.

        Raises:
            UserError: `begin` was called before.
        """
        self._check_not_begun("saved_state")
        return self._engine.run.resume.saved_state(name)

    def feed(self) -> Feed:
        """Return a stream of batches for a framework that lets its iterator be replaced. Track it."""
        run = self._engine.run
        feed = Feed(run.state.seed, suspect=self.suspect, warn=_warn)
        self._feeds.append(feed)
        return feed

    def suspect(self, reason: Reason) -> None:
        """Take in a known cause of inexactness: the resume is called suspect.

        Args:
            reason: The cause.
        """
        self._engine.run.suspicions.add(reason)

    def begin(self, *, epochs: int | None = None, is_audited: bool = True) -> DrivenPlace:
        """Restore the newest checkpoint that verifies, and say where the run is.

        Args:
            epochs: How many epochs the run has, if known.
            is_audited: Whether the first step is audited. Not if what trains is tracked through objects that
                hide it, such as a framework's trainer.

        Raises:
            MismatchError: The checkpoint is sound and does not fit what is tracked; nothing was changed.
            UserError: It was called before.
        """
        self._check_not_begun("begin")
        self._is_begun = True
        engine, resume = self._engine, self._engine.run.resume
        if not is_audited:
            engine.skip_audit()
        engine.begin()
        if not resume.enter_phase(0, is_first=True):
            resume.restore_again()
        self.plan(epochs)
        position = engine.run.state.position
        position.shard_over(engine.run.settings.environment.world_size)
        place = DrivenPlace(
            position.step,
            position.epoch,
            position.batch,
            is_epoch_trained=position.loop > 0,
            is_resumed=engine.run.checkpoints.lineage.resumed_from is not None,
            is_finished=resume.is_finished,
        )
        if not place.is_finished:
            self._open_epoch()
        return place

    def plan(self, epochs: int | None) -> None:
        """Note how many epochs the run has.

        Args:
            epochs: Number of epochs, None if it is not known.
        """
        self._engine.run.link.epochs = UNKNOWN if epochs is None else epochs

    def put_back(self, *names: str, generators: bool = True) -> None:
        """Put back once more what `begin` has restored, if nothing was trained since.

        Frameworks run code of their own between `begin` and the first batch, which draws random numbers and
        resets metrics. Does nothing in a run that was not resumed.

        Args:
            names: Names of tracked objects.
            generators: Whether to put back the global random generators as well.
        """
        if self._engine.run.resume.is_kept:
            self._engine.run.resume.put_back(names, has_generators=generators)

    # ------------------------------------------------------------------ boundaries

    def step_done(self, step: int, epoch: int, batch: int, is_last: bool = False) -> None:
        """Mark the end of a step, which is a boundary. Saves and drains happen here.

        Args:
            step: Steps finished, this one included.
            epoch: Epoch in progress, from 0.
            batch: Batches of the epoch that are finished, those of this step included.
            is_last: Whether it is the last step of the epoch.

        Raises:
            UserError: The numbers do not follow those before, or the first step shows something untracked.
            SystemExit: The run was drained here.
        """
        self._check_running()
        engine, position = self._engine, self._engine.run.state.position
        if epoch != position.epoch or batch <= position.batch or step <= position.step or position.loop:
            raise UserError(
                f"step_done(step={step}, epoch={epoch}, batch={batch}) does not follow step {position.step}, "
                f"epoch {position.epoch}, batch {position.batch}",
                hint="call epoch_done at the end of each epoch, and go on where begin() has said",
            )
        if not self._is_epoch_open:
            self._open_epoch()
        for feed in self._feeds:
            for indices in feed.taken():
                engine.run.state.note_samples(indices)
        engine.run.resume.forget()
        position.step, position.batch = step - 1, batch - 1
        engine.batch_done(ends_step=True, is_last=is_last, ends_loop=is_last)
        if not is_last:
            engine.enter_step()

    def evaluation_batch_done(self) -> None:
        """Mark the end of a batch of an evaluation. Between epochs, a request to stop is answered here.

        Raises:
            UserError: The run has not begun, or is over.
            SystemExit: The run was drained here.
        """
        self._check_running()
        self._engine.evaluation_batch_done()

    def epoch_done(self, epoch: int) -> None:
        """Mark the end of an epoch and of the work that follows it: a boundary.

        Args:
            epoch: Number of the epoch, from 0.

        Raises:
            UserError: It is not the epoch in progress.
            SystemExit: The run was drained here.
        """
        self._check_running()
        position = self._engine.run.state.position
        if epoch != position.epoch:
            raise UserError(f"epoch_done({epoch}): epoch {position.epoch} is in progress")
        if not self._is_epoch_open:
            self._open_epoch()
        self._engine.run.resume.forget()
        if position.batch:
            position.end_loop()  # left early: its last step was a boundary, and this is the next one
        self._engine.epoch_done()
        self._is_epoch_open = False
        planned = self._engine.run.link.epochs
        if planned == UNKNOWN or position.epoch < planned:
            self._open_epoch()

    # ------------------------------------------------------------------ the end

    def finish(self) -> None:
        """Save the final state of the complete run.

        A run that was finished before, and in which nothing was trained since, gets its final state back.

        Raises:
            UserError: The run has not begun, or is over.
            SpaceError: The disk is full or read-only; earlier checkpoints are unchanged.
            SystemExit: A drain is pending.
        """
        self._check_running()
        self.is_over = True
        try:
            self._engine.finish()
        finally:
            self._end_session()

    def leave(self, reason: str) -> NoReturn:
        """Leave the process, drained, with the newest boundary that is saved or held in memory.

        Args:
            reason: Why, for the log and `trainerd explain`.

        Raises:
            SystemExit: This is how it leaves.
        """
        self.session.ask_to_stop(reason)
        self._engine.leave_where_safe()

    def fail(self, error: BaseException) -> None:
        """Save the newest boundary held in memory, and record the exception that ended the attempt.

        Args:
            error: The exception, with its traceback.

        Raises:
            SystemExit: A drain is pending.
        """
        self.is_over = True
        try:
            self._engine.fail(error)
        finally:
            self._end_session()

    def end_block(self) -> None:
        """The block of the session ends without an error: finish, unless a stop was asked for before that."""
        near = self._engine.run.agreement.is_drain_near()
        self._engine.has_told_drain = self._engine.has_told_drain or near
        self.is_over = True
        self._engine.finish()

    def raise_if_left(self) -> None:
        """Leave again, if the framework has kept the process from leaving.

        Raises:
            SystemExit: The run was drained.
        """
        self._engine.run.exit.raise_if_left()

    @property
    def seed(self) -> int:
        """The seed of the session, for loaders of `trainerd.exact`."""
        return self._engine.run.state.seed

    @property
    def is_left(self) -> bool:
        """Whether the run was drained, and all that is left to do is to end."""
        return self._engine.run.exit.is_left

    @property
    def tracked(self) -> Mapping[str, Any]:
        """What is tracked, by name."""
        return MappingProxyType(self._engine.run.state.objects)

    def close(self) -> None:
        """Let go of the loaders."""
        for feed in self._feeds:
            feed.close()

    def _end_session(self) -> None:
        self.session.__exit__(None, None, None)  # does nothing more to the run: it is over

    # ------------------------------------------------------------------ within

    def _open_epoch(self) -> None:
        self._is_epoch_open = True
        self._engine.begin_epoch()
        if not self._engine.run.state.position.loop:
            self._engine.enter_step()

    def _check_not_begun(self, what: str) -> None:
        if self._is_begun:
            raise UserError(f"{what}() comes before the run has begun")

    def _check_running(self) -> None:
        self._engine.run.exit.raise_if_left()
        if not self._is_begun or self.is_over:
            raise UserError("the run has not begun, or is over", hint="call begin() first")


def _warn(message: str) -> None:
    warnings.warn(f"trainerd: {message}", stacklevel=4)
