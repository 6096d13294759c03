"""The life of a run that is driven.

Whoever trains tells the engine what is done, and the engine does the rest.

    engine.open()                 the run folder, the lock, the signals
    engine.begin()                the state is restored
    for every epoch:
        engine.begin_epoch()
        for every loop that trains, unless engine.skips_loop():
            engine.begin_loop(source), engine.run_loop(source, total)
            for every batch:
                engine.answer()               what was asked for while the batch was waited for
                engine.enter_step()
                engine.batch_done(...)        saves, drains: this is a boundary, if the batch ends a step
            engine.loop_done()
        engine.epoch_done()
    engine.finish(), or engine.fail(error)
    engine.close()

The engine iterates over nothing: `Session` pulls batches and calls it, and so can the callbacks of a
framework.

Invariants:
    State is captured at boundaries and nowhere else: between two steps, two loops or two epochs.
    A signal sets a flag; the flag is read at boundaries and in waits, never acted upon elsewhere.
    What is asked for at one boundary is done before the next one is crossed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.contract.failpoints import declare
from trainerd.contract.heartbeat import Phase
from trainerd.training.distributed.agreement import WaysOut
from trainerd.training.engine.supervisor_link import UNKNOWN

if TYPE_CHECKING:
    from typing import NoReturn

    from trainerd.training.data.sources import Source
    from trainerd.training.engine.run_parts import RunParts

STARTED = declare("training.started", "a run folder, and checkpoints of earlier attempts if there were any")
RESTORED = declare(
    "training.restored", "what was there before: restoring writes nothing but a marker in the history"
)
STEPPED = declare("training.stepped", "the newest checkpoint; the steps since are run again")
EVALUATED = declare("training.evaluated", "the newest checkpoint; the evaluation is run again")
EPOCH_ENDED = declare("training.epoch-ended", "the newest checkpoint, usually that of the end of the epoch")


class RunEngine:
    """Drives one attempt at a run.

    Args:
        run: Parts of the attempt.

    Attributes:
        is_begun: Whether the state was restored, or there was none to restore.
    """

    def __init__(self, run: RunParts) -> None:
        self.run = run
        self.is_begun = False
        self._is_in_step = False

    # ------------------------------------------------------------------ beginning

    def open(self) -> None:
        """Open the parts, and leave a record if that fails.

        Raises:
            LockedError: Another process trains this run.
            SpaceError: The disk is full or read-only.
        """
        try:
            self.run.open()
        except BaseException as error:
            self.run.flag.remove()
            self.run.exit.failed(error, step=None)
            raise
        STARTED.hit()

    def begin(self) -> None:
        """Restore the newest checkpoint that verifies, unless that was done.

        Raises:
            MismatchError: It is sound and does not fit what is tracked; nothing was changed.
        """
        if self.is_begun:
            return
        self.is_begun = True
        self.run.buckets.watch()
        checkpoint = self.run.resume.restore()
        self.run.buckets.put_back(step=checkpoint.step if checkpoint else 0)
        if checkpoint is not None:
            self.run.saves.mark_resumed(self.run.resume.position.key())
        self.run.pacing.resumed(self.run.state.position.step)
        self.run.link.resumed_step = self.run.state.position.step
        self.run.agreement.start(
            WaysOut(
                self.run.exit.leave_at_this_boundary,
                self.run.exit.leave_with_what_all_hold,
                self.run.exit.fail_and_leave,
            )
        )
        self.run.link.beat(Phase.START)
        RESTORED.hit()
        if checkpoint is None and self.run.settings.checkpoint.every.at_start:
            self.run.saves.save("start")

    def begin_epoch(self) -> None:
        """An epoch begins, or what is left of it."""
        self.run.link.batches = UNKNOWN
        self.run.saves.stage("drain")
        self.run.link.beat(Phase.STEP)

    def skips_loop(self) -> bool:
        """Tell whether the training loop that begins now was finished before the checkpoint.

        If so, it is over.
        """
        return self.run.resume.skips_loop()

    def begin_loop(self, source: Source) -> None:
        """A loop that trains begins: put the state back if it is the one that was interrupted.

        Raises:
            MismatchError: It goes on in the middle, and its data has another length than before.
        """
        self.run.resume.check_data(self.run.state.position.loop, source.extent())
        self.run.resume.restore_again()

    def run_loop(self, source: Source, batches: int | None) -> None:
        """The first batch of the loop is about to be fetched."""
        self.run.link.batches = UNKNOWN if batches is None else batches
        self.run.state.use_source(self.run.state.position.loop, source)
        self.run.link.beat(Phase.STEP)

    # ------------------------------------------------------------------ boundaries

    def enter_step(self) -> None:
        """The body of a step begins, or the next batch of one."""
        while not self._is_in_step and not self.run.agreement.enter():
            self.answer()
        self._is_in_step = True

    def batch_done(self, *, ends_step: bool, is_last: bool) -> None:
        """A batch is done. If it ends a step, this is a boundary: saves and drains happen here.

        Args:
            ends_step: Whether the optimizer has made its step.
            is_last: Whether it is the last batch of its loop.
        """
        self.run.state.position.batch += 1
        if ends_step:
            self.step_done(is_last_batch=is_last)

    def step_done(self, *, is_last_batch: bool) -> None:
        """A step is done, and its batches were counted."""
        self._cross()
        position = self.run.state.position
        position.step += 1
        self._end_row(position.batch - 1)
        self.run.link.beat(Phase.STEP)
        STEPPED.hit()
        self.run.buckets.step_done()
        self._save_after_step(ends_epoch=position.epoch + 1 if is_last_batch else None)
        self.answer()
        self.run.saves.prepare()
        if (
            self.run.settings.grace_s is not None
            and self.run.ranks is None
            and self.run.saves.is_staging_cheap()
        ):
            self.run.saves.stage("flushed")

    def _save_after_step(self, *, ends_epoch: int | None) -> None:
        step, saves = self.run.state.position.step, self.run.saves
        if self.run.link.takes_checkpoint_request():
            saves.is_asked = True
        has_failed = self.run.checkpoints.writer.has_failed
        if reason := self.run.pacing.after_step(
            step, ends_epoch=ends_epoch, is_asked=saves.is_asked, has_failed=has_failed
        ):
            self.run.link.beat(Phase.CHECKPOINT)
            saves.save_if_free(reason)
            self.run.link.beat(Phase.STEP)
        if self.run.ranks is None:
            return
        is_first = self.run.ranks.rank == 0
        if request := self.run.pacing.to_request(step, is_asked=saves.is_asked, has_clock=is_first):
            self.run.agreement.request("save", request)
        elif self.run.settings.grace_s is not None and is_first and saves.is_staging_cheap():
            # All of them at one boundary, or none could be saved.
            self.run.agreement.request("stage", "flushed")

    def loop_done(self) -> None:
        """A loop that trains is over."""
        # What the script does next, such as a scheduler's step or a validation, comes after this boundary and
        # before the next one: a drain in it goes back to here, so that nothing of it is done twice.
        self._is_in_step = False
        self._cross()
        self.run.state.position.end_loop()
        self.run.saves.stage("drain")

    def epoch_done(self) -> None:
        """An epoch is over."""
        position, saves = self.run.state.position, self.run.saves
        self._cross(is_last=position.epoch + 1 >= self.run.link.epochs)
        position.end_epoch()
        self.run.resume.end_epoch()
        self._end_row(0)
        if reason := self.run.pacing.after_epoch(
            position.step, epochs_done=position.epoch, is_asked=saves.is_asked, scores=saves.scores
        ):
            self.run.link.beat(Phase.CHECKPOINT)
            saves.save(reason)
        saves.scores = {}
        self.run.link.beat(Phase.STEP)
        EPOCH_ENDED.hit()
        if position.epoch < self.run.link.epochs:
            self.answer()

    def evaluation_batch_done(self) -> None:
        """A batch of an evaluation is done: no boundary, but a request to stop is answered."""
        self.run.link.beat(Phase.EVALUATION)
        EVALUATED.hit()
        self.answer()

    def hears_drain(self) -> bool:
        """Tell whether to leave here: asked to, and at a boundary, not within a step."""
        return not self._is_in_step and self.run.agreement.is_drain_due()

    def answer(self) -> None:
        """Do what is asked for at this boundary: save it, or save and leave. Nothing, within a step."""
        if self._is_in_step:
            return
        for decision in self.run.agreement.settle():
            if decision.action == "drain":
                self.leave(decision.reason)
            if decision.action == "stage":
                self.run.saves.stage(decision.reason)
            else:
                self.run.saves.save_here(decision.reason)

    def _cross(self, *, is_last: bool = False) -> None:
        """Cross to the next boundary. What was asked for at the former one is done first."""
        while not self.run.agreement.cross(is_last=is_last):
            self.answer()
        self._is_in_step = False

    def _end_row(self, batch: int) -> None:
        written = self.run.measurements.end_step(batch)
        proof = self.run.resume.proof
        if written is not None and proof is not None and not proof.is_over:
            position = self.run.state.position
            proof.compare((position.step, position.epoch, batch), *written)

    # ------------------------------------------------------------------ the end

    def leave(self, reason: str | None = None) -> NoReturn:
        """Save this boundary and leave the process, drained."""
        self.run.exit.drained(reason)

    def finish(self) -> None:
        """The run is over: save it as it is now, for good.

        If the script stopped early because of a drain, leave so.
        """
        self.run.exit.is_leaving = True
        self.begin()
        if self.run.ranks is not None:
            self._cross(is_last=True)
        elif self.run.flag.is_set and self.run.state.position.epoch < self.run.link.epochs:
            self.leave()  # the script broke off its loop because of the request
        self.run.exit.finished()

    def fail(self, error: BaseException) -> None:
        """The script raised. Nothing is saved: that may have been in the middle of a step."""
        self.run.exit.failed(error, step=self.run.state.position.step if self.is_begun else None)

    def close(self) -> None:
        """Close the parts.

        Raises:
            SpaceError: The disk was full for the write in flight.
            OSError: The write in flight failed.
        """
        self.run.close()
