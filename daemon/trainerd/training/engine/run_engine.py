"""The life of a run that is driven.

The session or an integration tells the engine what is done, and the engine does the rest.

    engine.open()                 the run folder, the lock, the signals
    engine.begin()                the state is restored
    for every epoch:
        engine.begin_epoch()
        for every loop that trains, unless engine.skips_loop():
            engine.begin_loop(source), engine.run_loop(total)
            for every batch:
                engine.answer()               what was asked for while the batch was waited for
                engine.enter_step()
                engine.batch_done(...)        saves, drains: this is a boundary, if the batch ends a step
            engine.loop_done()                unless the last batch said that it ends the loop
        engine.epoch_done()
    engine.finish(), or engine.fail(error)
    engine.close()

The engine iterates over nothing: `Session` pulls batches and calls it, and so can the callbacks of a
framework.

Invariants:
    State is captured at boundaries and nowhere else: between two steps, two loops or two epochs.
    A signal sets a flag; the flag is read at boundaries and in waits, never acted upon elsewhere.
    What is asked for at one boundary is done before the next one is crossed.
    A boundary is inside a loop or after it, never both: the end of a loop that is known when its last step
    ends is one boundary with that step. A loop that is found to be over only later ends without a boundary,
    and the beginning of the next loop is the next one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trainerd.contract.failpoints import declare
from trainerd.contract.heartbeat import Phase
from trainerd.contract.save_reasons import FLUSHED
from trainerd.contract.verdict import Reason
from trainerd.training.distributed.agreement import WaysOut
from trainerd.training.distributed.group_hint import say_group_hint
from trainerd.training.engine.first_step import FirstStep
from trainerd.training.engine.imported_modules import note_imported_modules
from trainerd.training.engine.rehearsed import RehearsedRun
from trainerd.training.engine.supervisor_link import UNKNOWN

if TYPE_CHECKING:
    from typing import NoReturn

    from trainerd.contract.rehearsal import Place
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
        max_steps: Steps after which the run is over, None if only its loops say that.
        has_told_drain: Whether the script was told that a stop was asked for. A loop that it leaves then is
            left because of that.
    """

    def __init__(self, run: RunParts) -> None:
        self.run = run
        self.is_begun = False
        self.max_steps: int | None = None
        self.has_told_drain = False
        self._is_in_step = False
        self._first_step: FirstStep | None = FirstStep(
            run.state, run.suspicions, is_strict=run.settings.is_strict
        )
        self._hints_at_group = run.settings.environment.world_size > 1
        self._notes_modules = run.settings.environment.has_standby and run.is_alone
        self._rehearsed = RehearsedRun.asked_by(os.environ, run)

    @property
    def is_at_max(self) -> bool:
        """Whether all steps of the run are done."""
        return self.max_steps is not None and self.run.state.position.step >= self.max_steps

    @property
    def is_last_step(self) -> bool:
        """Whether the step in progress is the last one of the run."""
        return self.max_steps is not None and self.run.state.position.step + 1 >= self.max_steps

    @property
    def stops_for_drain(self) -> bool:
        """Whether a script that stops now does so because a stop was asked for, and not all is done."""
        is_done = self._is_planned_end(self.run.state.position.epoch)
        return self.run.is_alone and self.has_told_drain and not is_done

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
        self.run.state.objects.check_initialized()
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
        self.run.state.gradients.watch()
        self.run.link.beat(Phase.START)
        RESTORED.hit()
        if self._rehearsed is not None:
            self._rehearsed.begin()
        if checkpoint is None and self.run.settings.checkpoint.every.at_start:
            self.run.saves.save("start")

    def stage_beginning(self) -> None:
        """The script goes on before its first loop: a drain there saves what was, and it runs that again."""
        if self.run.state.position.is_at_start():
            self.run.saves.stage("drain")

    def enter_phase(self, phase: int, *, is_first: bool) -> None:
        """A loop over epochs begins.

        Args:
            phase: Its number.
            is_first: Whether nothing of the script has run since `begin`.
        """
        goes_on = self.run.resume.enter_phase(phase, is_first=is_first)
        if goes_on and not self.run.state.position.entered:
            self.run.measurements.forget()  # they are in a row that an earlier attempt has written

    def begin_epoch(self) -> None:
        """An epoch begins, or what is left of it."""
        self.run.resume.begin_epoch()
        self.run.resume.trains_on()
        self.run.link.batches = UNKNOWN
        if not self.run.saves.is_safe_here():  # what came before the loop over epochs would run twice
            self.run.saves.stage("drain")
        self.run.link.beat(Phase.STEP)
        if self._first_step is not None:
            self._first_step.begin_epoch()

    def skips_loop(self, total: int | None = None) -> bool:
        """Tell whether the training loop that begins now was finished before the checkpoint.

        If so, it is over.

        Args:
            total: How many batches it has now, if it goes on should it have had fewer.
        """
        is_over = self.run.resume.skips_loop(total)
        if is_over:
            self.run.measurements.forget()
        return is_over

    def begin_loop(self, source: Source) -> None:
        """A loop that trains begins: put the state back if it is the one that was interrupted.

        Raises:
            MismatchError: It goes on in the middle, and its data has another length than before.
        """
        resume, position = self.run.resume, self.run.state.position
        goes_on = resume.is_pending
        if goes_on and not resume.position.late:
            self.run.measurements.forget()  # what was logged before the loop is in the row of its first step
        resume.restore_again()
        resume.look_at_changes()
        resume.trains_on()
        if position.late and self._is_in_step:
            self._cross()  # the loop before was found to be over without a boundary: this is one
        self.run.state.use_source(position.loop, source)
        resume.check_data(position.loop, source.extent(), goes_on=goes_on)  # the script's changes are back
        resume.suspect_generators()  # a loader may have one of its own
        self.run.state.values.loop_begins(goes_on=goes_on)

    def begin_evaluation(self) -> None:
        """A loop that does not train begins. A drain in it goes back to the boundary crossed last."""
        if not self._is_in_step and not self.run.saves.is_safe_here():
            self.run.saves.stage("drain")
        self.run.link.beat(Phase.EVALUATION)

    def skip_audit(self) -> None:
        """Leave the audit of the first step out: what trains is tracked through objects that hide it."""
        if self._first_step is not None:
            self._first_step.close()
            self._first_step = None

    def run_loop(self, batches: int | None) -> None:
        """The first batch of the loop is about to be fetched."""
        self.run.link.batches = UNKNOWN if batches is None else batches
        self.run.link.beat(Phase.STEP)

    # ------------------------------------------------------------------ boundaries

    def enter_step(self) -> None:
        """The body of a step begins, or the next batch of one."""
        while not self._is_in_step and not self.run.agreement.enter():
            self.answer()
        self._is_in_step = True
        if self._rehearsed is not None:
            self._rehearsed.enter_step()
        if self._first_step is not None:
            self._first_step.begin()

    def batch_done(
        self, *, ends_step: bool, is_last: bool, ends_loop: bool = False, is_in_series: bool = False
    ) -> None:
        """A batch is done. If it ends a step, this is a boundary: saves and drains happen here.

        Args:
            ends_step: Whether the optimizer has made its step.
            is_last: Whether it is the last batch of its loop.
            ends_loop: Whether the loop is over with it, so that the boundary is after the loop.
            is_in_series: See `Position.end_loop`.
        """
        position = self.run.state.position
        position.batch += 1
        position.late = False
        if ends_step:
            self.step_done(is_last_batch=is_last, ends_loop=ends_loop, is_in_series=is_in_series)

    def step_done(self, *, is_last_batch: bool, ends_loop: bool = False, is_in_series: bool = False) -> None:
        """A step is done, and its batches were counted.

        Raises:
            UserError: It shows something that is not tracked. It is the first one, or an optimizer's first.
                Or training has changed an optimizer in a way that no checkpoint can hold.
        """
        if self._first_step is not None:
            self._first_step.end()
        if self.run.state.changes.show():
            self.run.state.check_changes(step=self.run.state.position.step + 1)
        if self._hints_at_group:
            self._hints_at_group = False
            ranks = self.run.settings.environment
            say_group_hint(rank=ranks.rank, world_size=ranks.world_size)
        self.run.compiled.step_done()
        if self._notes_modules:
            self._notes_modules = False
            settings = self.run.settings
            note_imported_modules(
                settings.run.modules,
                attempt=settings.attempt,
                attempt_dir=settings.environment.attempt_dir,
            )
        self._cross()
        position, saves = self.run.state.position, self.run.saves
        self._count_step()
        if ends_loop:
            self.run.evidence.witness.end_loop()
            position.end_loop(ended_at=position.batch if is_last_batch else 0, is_in_series=is_in_series)
            self.run.state.earlier_generators.loop_ended()
        self.run.evidence.pass_boundary()
        self.run.link.beat(Phase.STEP)
        STEPPED.hit()
        self._reach("step")
        self._save_after_step(ends_epoch=position.epoch + 1 if is_last_batch or ends_loop else None)
        self.answer()
        saves.prepare()
        if ends_loop:
            saves.stage("drain")
            self._reach("after-loop")
        elif self.run.ranks is None and self.run.memory.is_due():  # several agree on it: see `answer`
            saves.keep_in_memory()
        elif self.run.settings.grace_s is not None and self.run.ranks is None and saves.is_staging_cheap():
            saves.stage(FLUSHED)

    def _count_step(self) -> None:
        position = self.run.state.position
        position.step += 1
        position.entered = False
        self._end_row(position.batch - 1)
        self.run.buckets.step_done()
        self.run.state.gradients.boundary_passed()

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
            self.run.score_watch.boundary(self.run.checkpoints.sequence.saves)
        if self.run.ranks is None:
            return
        is_first = self.run.ranks.rank == 0
        if request := self.run.pacing.to_request(step, is_asked=saves.is_asked, has_clock=is_first):
            self.run.agreement.request("save", request)
        elif self.run.settings.grace_s is not None and is_first and saves.is_staging_cheap():
            # All of them at one boundary, or none could be saved.
            self.run.agreement.request("stage", FLUSHED)

    def loop_done(self, *, is_in_series: bool = False) -> None:
        """A loop that trains is over, and its last step was a boundary before."""
        # What the script does next, such as a scheduler's step or a validation, comes after this boundary and
        # before the next one: a drain in it goes back to here, so that nothing of it is done twice.
        self._is_in_step = False
        self._cross()
        self.run.evidence.witness.end_loop()
        position = self.run.state.position
        position.end_loop(ended_at=position.batch, is_in_series=is_in_series)
        self.run.state.earlier_generators.loop_ended()
        self.run.evidence.pass_boundary()
        self.run.saves.stage("drain")
        self._reach("after-loop")

    def loop_found_over(self) -> None:
        """A loop that trains is over since some time: its last batch is counted, and this is no boundary.

        The code that the script has run since belongs to the step. It goes on until the next loop begins, or
        the epoch or the run ends.
        """
        position = self.run.state.position
        position.batch += 1
        self._count_step()
        self.run.evidence.witness.end_loop()
        position.end_loop(is_late=True)
        self.run.state.earlier_generators.loop_ended(is_late=True)
        self._is_in_step = True

    def epoch_done(self, *, over: int | None = None) -> None:
        """An epoch is over.

        Args:
            over: How many of the script's loops over epochs are over, if it has left one early.
        """
        self.run.exit.raise_if_left()
        self._check_reached(f"epoch {self.run.state.position.epoch}")
        position, saves = self.run.state.position, self.run.saves
        is_last = over is not None or self._is_planned_end(position.epoch + 1)
        self._cross(is_last=is_last)
        position.end_epoch()
        if over is not None:
            position.over = over
        self.run.resume.end_epoch()
        self.run.state.gradients.boundary_passed()  # an epoch may have no step that the session sees
        self._end_row(0)
        if self._first_step is not None:
            self._first_step.end_epoch()
        self.run.evidence.pass_boundary()
        if reason := self.run.pacing.after_epoch(
            position.step, epochs_done=position.epoch, is_asked=saves.is_asked, scores=saves.scores
        ):
            self.run.link.beat(Phase.CHECKPOINT)
            saves.save(reason)
        saves.scores = {}
        self.run.score_watch.boundary(self.run.checkpoints.sequence.saves)
        self.run.link.beat(Phase.STEP)
        EPOCH_ENDED.hit()
        self._reach("epoch")
        if is_last:
            saves.stage("drain")  # the work after the last epoch may be long
        else:
            self.answer()

    def _check_reached(self, what_ends: str) -> None:
        """Put the state back if the script has not come to the interrupted loop: it has another flow now."""
        resume = self.run.resume
        if not resume.is_pending or resume.is_finished:
            return
        target = resume.position
        self.run.suspicions.add(
            Reason(
                "loop-not-reached",
                what_ends,
                f"ended before the script came to training loop {target.loop + 1} of epoch "
                f"{target.epoch}, at which the checkpoint was made",
                "run the loops that the script ran before, or resume from the end of an epoch",
            )
        )
        resume.restore_again()

    def _is_planned_end(self, epochs_done: int) -> bool:
        planned = self.run.link.epochs
        return self.is_at_max or (planned != UNKNOWN and epochs_done >= planned)

    def evaluation_batch_done(self) -> None:
        """A batch of an evaluation is done: no boundary, but a request to stop is answered."""
        self.run.link.beat(Phase.EVALUATION)
        EVALUATED.hit()
        self._reach("evaluation")
        self.answer()

    def _reach(self, place: Place) -> None:
        if self._rehearsed is not None:
            self._rehearsed.reach(place)

    def hears_drain(self) -> bool:
        """Tell whether to leave here: asked to, and at a boundary, not within a step."""
        return not self._is_in_step and self.run.agreement.is_drain_due()

    def answer(self) -> None:
        """Do what is asked for at this boundary: save it, or save and leave. Nothing, within a step."""
        self.run.exit.raise_if_left()
        if self._is_in_step:
            return
        for decision in self.run.agreement.settle():
            if decision.action == "drain":
                self.leave(decision.reason)
            if decision.action == "stage":
                if not self.run.saves.is_safe_here():  # the script may have gone on since it was staged
                    self.run.saves.stage(decision.reason)
            elif decision.action == "copy":
                self.run.saves.copy_together(decision.number)
            else:
                self.run.saves.save_here(decision.reason)

    def _cross(self, *, is_last: bool = False) -> None:
        """Cross to the next boundary. What was asked for at the former one is done first."""
        while not self.run.agreement.cross(is_last=is_last):
            self.answer()
        self._is_in_step = False

    def _end_row(self, batch: int) -> None:
        self.run.measurements.end_step(batch, self.run.evidence.step_done)

    # ------------------------------------------------------------------ the end

    def leave(self, reason: str | None = None) -> NoReturn:
        """Save this boundary and leave the process, drained."""
        self.run.exit.drained(reason)

    def leave_where_safe(self) -> NoReturn:
        """Leave with the newest boundary that is saved or staged: the script has gone on since."""
        if self.run.ranks is not None or self.run.exit.is_left or self.run.saves.is_safe_here():
            self.leave()
        self.run.exit.flushed("the script left its loop")

    def finish(self) -> None:
        """The run is over: save it as it is now, for good.

        If the script stopped early because of a drain, leave so. What keeps the run from its end is put on
        record, as what the script raises is: a full disk is then waited for, and is no crash.
        """
        self.run.exit.raise_if_left()
        self.run.exit.is_leaving = True
        try:
            self.begin()
            if self.run.ranks is not None:
                self._cross(is_last=True)
            elif self.stops_for_drain:
                self.leave_where_safe()
            self._check_reached("the run")
            if not self.run.resume.is_finished:  # nothing was trained
                self.run.score_watch.boundary(self.run.checkpoints.sequence.saves, is_end=True)
            self.run.exit.finished()
        except Exception as error:
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """The script raised, maybe in the middle of a step: what is saved is the newest boundary in memory.

        Raises:
            SystemExit: A drain is pending.
        """
        self.run.exit.failed(error, step=self.run.state.position.step if self.is_begun else None)

    def close(self) -> None:
        """Close the parts.

        Raises:
            SpaceError: The disk was full for the write in flight.
            OSError: The write in flight failed.
        """
        if self._first_step is not None:
            self._first_step.close()
        self.run.state.gradients.close()
        self.run.state.changes.close()
        self.run.close()
