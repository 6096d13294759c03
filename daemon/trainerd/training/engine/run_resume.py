"""The way back to the newest checkpoint: find it and restore it.

Invariants:
    After a resume in the middle of an epoch, the state is put back a second time where the interrupted loop
    begins: what the code before it drew and changed was done before the checkpoint already.
    Of several ranks, all resume from the same checkpoint or none does.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from trainerd.checkpoint.fingerprint import DATA, changes, compared
from trainerd.contract.counted import counted
from trainerd.contract.verdict import Reason
from trainerd.errors import MismatchError, TrainerdError, UserError
from trainerd.training.distributed.joint_resume import confirm_together, find_together, resume_together
from trainerd.training.engine.loop_sources import LOOPS_MAX
from trainerd.training.engine.position import Position
from trainerd.training.engine.resume_checks import (
    GENERATORS,
    change_reasons,
    generator_reasons,
    program_changes,
)
from trainerd.training.engine.row_comparison import Patterns
from trainerd.training.engine.run_announcement import new_run_hint, note_program
from trainerd.training.engine.self_comparison import edited_difference
from trainerd.training.interruption.leaving import say
from trainerd.training.state.generators import take_reseeded
from trainerd.training.state.rank_files import read_verified
from trainerd.training.state.restore import NOT_FITTING_HINT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from trainerd.checkpoint.fingerprint import FieldVerdict
    from trainerd.checkpoint.store import Checkpoint
    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.engine.checkpoint_manager import CheckpointManager
    from trainerd.training.engine.history import HistoryWriter
    from trainerd.training.engine.resume_evidence import ResumeEvidence
    from trainerd.training.engine.run_state import RunState
    from trainerd.training.engine.silent_history import SilentHistory
    from trainerd.training.engine.suspicions import Suspicions
    from trainerd.training.settings import Settings
    from trainerd.training.state.restore import StateTree


class RunResume:
    """The resume of one attempt.

    Args:
        settings: Settings of the session.
        state: State of the run.
        checkpoints: Finds the checkpoint.
        history: Metric history.
        ranks: This rank and the others, None if there are none.
        evidence: Finds out whether the resume is exact.
        suspicions: Known causes of inexactness.

    Attributes:
        position: Boundary of the checkpoint.
        keeps_state: Whether the state of the checkpoint is kept for `put_back` until `forget`.
    """

    def __init__(
        self,
        settings: Settings,
        state: RunState,
        checkpoints: CheckpointManager,
        history: HistoryWriter | SilentHistory,
        *,
        ranks: Ranks | None,
        evidence: ResumeEvidence,
        suspicions: Suspicions,
    ) -> None:
        self.position = Position()
        self.keeps_state = False
        self._kept: StateTree | None = None
        self._found: tuple[Checkpoint, StateTree] | None = None
        self._settings = settings
        self._state = state
        self._checkpoints = checkpoints
        self._history = history
        self._ranks = ranks
        self._evidence = evidence
        self._suspicions = suspicions
        self._pending: StateTree | None = None
        self._final: StateTree | None = None
        self._edited: StateTree | None = None  # what was restored before the script went on changing it
        self._saved_data: dict[str, dict[str, int]] = {}
        self._changed_sections: frozenset[str] = frozenset()

    @property
    def is_pending(self) -> bool:
        """Whether the interrupted loop is not reached again yet."""
        return self._pending is not None

    @property
    def is_replaying(self) -> bool:
        """Whether the script runs code that it has run before the checkpoint."""
        return self._pending is not None or self._final is not None

    @property
    def is_finished(self) -> bool:
        """Whether the run was finished before and nothing was trained since."""
        return self._final is not None

    # ------------------------------------------------------------------ once, at the beginning

    def restore(self) -> Checkpoint | None:
        """Restore the newest checkpoint that verifies and say so in the history; None if there is none.

        Raises:
            MismatchError: It does not fit what is tracked; nothing was changed.
        """
        try:
            return self._restore()
        except MismatchError as error:
            hint = "change the program back, or resume from another checkpoint"
            if error.hint is not None and error.hint != NOT_FITTING_HINT:
                hint = error.hint
            error.hint = f"{hint}; {new_run_hint(self._settings.environment.job)}"
            raise

    def _restore(self) -> Checkpoint | None:
        self._state.begin()
        # Taken in every attempt at the same moment: modules are loaded as it goes on.
        now = self._state.fingerprint()
        checkpoint: Checkpoint | None = None
        tree: StateTree | None = None
        changed: tuple[FieldVerdict, ...] = ()
        position = self._state.position
        if (found := self._find()) is not None:
            checkpoint, tree = found
            self._put_back(tree, checkpoint)
            self._kept = tree if self.keeps_state else None
            saved = checkpoint.manifest.fingerprint
            self._saved_data = dict(saved.get(DATA, {}))
            changed = program_changes(saved, now)
            self._changed_sections = frozenset(each.field.partition(".")[0] for each in changed)
            self._checkpoints.lineage.adopt(checkpoint)
            self._checkpoints.settle()
            if checkpoint.manifest.is_final:
                self._final = tree
                self._reopen_epochs()
            self.position = position.copied()
            if not position.is_at_start():  # else nothing was run before it that would run again
                self._pending = tree
            if position.is_inside_epoch() or position.phase:
                position.loop = position.batch = position.phase = 0
                position.late = False
        keep_bytes = self._evidence.begin(checkpoint, tree, self.position, now, changed)
        if self._checkpoints.is_committer:
            note_program(self._settings)
            self._settings.run.finished.unlink(missing_ok=True)
        self._history.begin(
            attempt=self._settings.attempt,
            checkpoint=checkpoint.name if checkpoint else None,
            step=position.step,
            keep_bytes=keep_bytes,
        )
        return checkpoint

    def saved_state(self, name: str) -> Any:
        """Return the state that one object has in the checkpoint that `restore` will take; None if none.

        Nothing is changed, and the other objects need not exist yet.
        """
        if self._ranks is not None:
            checkpoints = self._checkpoints
            found = find_together(
                self._ranks,
                f"saved-state/{name}",
                checkpoints.store,
                self._find_newest,
                checkpoints.memory,
            )
            if found is None:
                return None
            rank = self._settings.environment.rank
            tree = read_verified(found.files, rank if rank < found.checkpoint.manifest.world_size else 0)
            return tree.objects.get(name)
        if self._found is None:
            self._found = self._checkpoints.find()
        return self._found[1].objects.get(name) if self._found is not None else None

    def put_back(self, names: Collection[str], *, has_generators: bool) -> None:
        """Put back some objects, and the random generators if asked, from the state that was kept.

        Raises:
            UserError: Nothing was kept, or not any more.
        """
        if self._kept is None:
            raise UserError(
                "there is no state to put back: the run was not resumed, or a step was done since"
            )
        if names:
            self._state.restore_objects(self._kept, names, source=self._source)
        if has_generators:
            self._state.restore_generators(self._kept)

    @property
    def is_kept(self) -> bool:
        """Whether there is a state for `put_back`."""
        return self._kept is not None

    def forget(self) -> None:
        """Let go of the state that was kept."""
        self._kept = None

    def _find(self) -> tuple[Checkpoint, StateTree] | None:
        if self._ranks is None:
            found, self._found = self._found or self._checkpoints.find(), None
            if found is not None:
                checkpoint = found[0]
                self._state.objects.check_ranks(checkpoint.name, saved=checkpoint.manifest.world_size, now=1)
            return found
        checkpoints = self._checkpoints
        return resume_together(
            self._ranks, checkpoints.store, self._find_newest, self._state.objects, checkpoints.memory
        )

    def _find_newest(self) -> Checkpoint | None:
        found = self._checkpoints.find()
        return found[0] if found is not None else None

    def _put_back(self, tree: StateTree, checkpoint: Checkpoint) -> None:
        problem: MismatchError | None = None
        try:
            self._state.restore(tree, source=checkpoint.name)
        except MismatchError as error:
            problem = error
        own = list(self._other_generators())
        all_noted: list[list[str]] = []
        if self._ranks is not None:
            all_noted = confirm_together(self._ranks, problem, list(map(str, own)))
        if problem is not None:
            raise problem
        self._suspect_generators_of_all(own, all_noted)
        before, now = checkpoint.manifest.world_size, self._settings.environment.world_size
        if before != now and self._checkpoints.is_committer:
            say(
                f"trainerd: {checkpoint.name} is of {counted(before, 'rank')} and goes on with {now}: every "
                "sample of the epoch is still used once, but the steps differ from before: the global batch "
                "has another size, and the random generators of ranks other than 0 are seeded again"
            )

    def _suspect_generators_of_all(self, own: list[Reason], all_noted: list[list[str]]) -> None:
        """Take in what could not be put back, on whatever rank: the first one keeps the record."""
        for reason in own:
            self._suspicions.add(reason)
        for rank, noted in enumerate(all_noted):
            if self._checkpoints.is_committer and rank != self._settings.environment.rank and noted:
                self._suspicions.add(Reason(GENERATORS, f"rank {rank}", noted[0]))

    def suspect_generators(self) -> None:
        """Take in that random generators could not be put back since the last call."""
        for reason in self._other_generators():
            self._suspicions.add(reason)

    def _other_generators(self) -> Iterator[Reason]:
        return generator_reasons(self._state.seeded_generators, take_reseeded())

    # ------------------------------------------------------------ until the interrupted loop is reached again

    def _reopen_epochs(self) -> None:
        """Let a loop over epochs that the script left early go on, if another program asks."""
        if self._state.position.over and not self._changed_sections.isdisjoint(("code", "config")):
            self._state.position.over = 0
            say(
                "trainerd: this run was finished: its script left session.epochs early. It goes on, as the "
                "script or its arguments are other ones now"
            )

    def skips_loop(self, total: int | None = None) -> bool:
        """Tell whether the training loop that begins now was finished before the checkpoint.

        If so, it is over.

        Args:
            total: How many batches it has now, if it goes on should it have had fewer.
        """
        position, target = self._state.position, self.position
        if not self.has_finished_loop():
            return False
        if position.phase < target.phase:
            return True
        position.end_loop()
        if position.loop == target.loop and target.batch == 0 and not target.late:
            self.restore_again()
            if total is not None and 0 < target.ended_at < total:
                position.loop, position.batch = position.loop - 1, target.ended_at
                return False
        elif position.loop == target.loop:
            self._state.earlier_generators.put_back_loop()
        return True

    def begin_epoch(self) -> None:
        """An epoch begins, or what is left of it: its code draws what it drew if it ran before."""
        if self._pending is None:
            # A loop that is not ours goes on within its epoch here, and runs none of that code again.
            if not self._state.position.batch:
                self._state.earlier_generators.epoch_begins()
        elif self.position.batch and self._state.position.phase >= self.position.phase:
            self._state.earlier_generators.put_back_epoch()

    def has_finished_loop(self) -> bool:
        """Tell whether the training loop that comes next was finished before the checkpoint."""
        position, target = self._state.position, self.position
        return self._pending is not None and (position.phase < target.phase or position.loop < target.loop)

    def enter_phase(self, phase: int, *, is_first: bool) -> bool:
        """A loop over epochs begins. Put the state back if it is the one that is resumed between two epochs.

        What came before it in the script, and was done before the checkpoint, is undone.

        Args:
            phase: Its number.
            is_first: Whether nothing of the script has run since the state was restored.

        Returns:
            Whether the script goes on here, with code that it has not run before.
        """
        self.look_at_changes()
        position = self._state.position
        position.phase = phase
        goes_on = self._pending is not None and phase >= self.position.phase
        if not goes_on or self.position.is_inside_epoch():
            position.entered = True
            return False
        if is_first:
            self._pending = None
        else:
            self.restore_again()
        self._state.loop_sources.put_back_early()
        return True

    def keep_changes(self) -> None:
        """Keep what the script changes from here on, if it goes on between two epochs of the first phase."""
        if not (self.position.is_inside_epoch() or self.position.phase):
            if self._final is None:
                self._edited = self._pending
            self._pending = None

    def look_at_changes(self) -> None:
        """Training begins: take in what the script has changed since `keep_changes`.

        A run without interruption makes the same change once, at its beginning. So what was drawn since from
        the global generators is undone.
        """
        tree, self._edited = self._edited, None
        if tree is None:
            return
        self._state.restore_generators(tree)
        with contextlib.suppress(TrainerdError):  # an object without an exact form on disk: a save says so
            is_left_out = Patterns(self._settings.uncompared).match
            found = edited_difference(tree, self._state, is_left_out=is_left_out)
            if found is not None:
                self._suspicions.add(
                    Reason(
                        "edited-after-resume",
                        found.path,
                        f"the script changed it after session.resume(), and the run goes on with that: "
                        f"{found.detail}; a run without interruption does so at its beginning alone",
                        "do it only if session.resumed_from is None, or before session.resume(); leave it "
                        "if this resume is meant to train on differently",
                    )
                )

    def repeats_end(self) -> bool:
        """Tell whether a loop that begins is beyond the end of a run that was finished before.

        The script had decided to end it within a loop, and neither it nor its arguments are other ones now.
        """
        is_same_program = self._changed_sections.isdisjoint(("code", "config"))
        target = self.position
        is_beyond = self._final is not None and self._state.position.loop >= target.loop > 0
        return is_beyond and target.ended_at == 0 and is_same_program

    def jump(self) -> range | None:
        """Go straight to the interrupted loop, if the one that begins now is of the same series.

        The loops between have drawn from the same loader until it was exhausted, by an explicit ``next``: the
        script is where it would be after them. Return their numbers; None if it is another series.
        """
        position, target = self._state.position, self.position
        if self._pending is None or position.phase < target.phase:
            return None
        if not target.series <= position.loop <= target.loop:
            return None
        is_after_loop = target.batch == 0 and not target.late and target.loop > position.loop
        first, position.loop = position.loop, target.loop - is_after_loop
        return range(max(first, position.loop - LOOPS_MAX), position.loop)

    def check_data(self, loop: int, extent: dict[str, int], *, goes_on: bool) -> None:
        """Check that the data is as long as it was, if the loop that begins goes on in the middle of it.

        Args:
            loop: Number of the loop.
            extent: Of its data, as it is now.
            goes_on: Whether it is the one that was interrupted, or one after it.

        Raises:
            MismatchError: It is not: the batches that are left would be other ones.
        """
        saved = self._saved_data.pop(str(loop), None)
        if saved is None:
            return  # compared before, or there was none
        is_inside = goes_on and loop == self.position.loop and self.position.batch > 0
        found = changes(compared({DATA: saved}, {DATA: extent}, is_inside_epoch=is_inside))
        if any(each.verdict == "refused" for each in found):
            raise MismatchError(
                f"{self._source} is in the middle of an epoch, and the data has another length",
                [str(each) for each in found],
                hint="give it the data that it had until this epoch ends, or resume from an epoch's end; "
                f"{new_run_hint(self._settings.environment.job)}",
            )
        for each in found:
            say(f"trainerd: {each}: the order of the data changes from here on")
        for reason in change_reasons(found):
            self._evidence.add(reason)

    def restore_again(self) -> None:
        """Put everything back once more, if the interrupted loop is the one that begins now."""
        tree, self._pending = self._pending, None
        if tree is not None:
            self._state.restore(tree, source=self._source)
            self.suspect_generators()

    def trains_on(self) -> None:
        """Something is trained that is not in the checkpoint: a run that was finished goes on."""
        if self._pending is None and self._final is not None:
            self._final = None
            self._evidence.prolongs()

    def restore_final(self) -> bool:
        """Put the final state back if the run was finished before and nothing was trained; tell that."""
        tree, self._final, self._pending = self._final, None, None
        if tree is not None:
            self._state.restore(tree, source=self._source)
        return tree is not None

    def end_epoch(self) -> None:
        """The epoch that was interrupted is over."""
        self._pending = None

    @property
    def _source(self) -> str:
        checkpoint = self._checkpoints.lineage.resumed_from
        assert checkpoint is not None
        return checkpoint.name
