"""What one attempt does to find out whether its resume is exact, and whom it tells.

At the resume, what is known is said: what was damaged, what changed, what the program says without effect.
The restored state is read back. Then the attempt compares, as it goes on: the next batch with the witness of
a drain, steps that are run again with their first run, the whole state with newer checkpoints that it passes.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from trainerd.contract.counted import counted
from trainerd.contract.metric_history import HEADER, FirstRuns, read_first_runs
from trainerd.contract.resume_record import ResumeRecord, read_resume
from trainerd.contract.save_reasons import FLUSHED
from trainerd.contract.verdict import Reason
from trainerd.errors import CorruptError, TrainerdError
from trainerd.training.engine import resume_checks
from trainerd.training.engine.history import HistoryWriter
from trainerd.training.engine.resume_proof import ResumeProof
from trainerd.training.engine.row_comparison import Patterns
from trainerd.training.engine.self_comparison import (
    SelfComparison,
    newer_checkpoints,
    restored_difference,
)
from trainerd.training.engine.witness import Witness
from trainerd.training.interruption.leaving import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainerd.checkpoint.fingerprint import FieldVerdict
    from trainerd.checkpoint.store import Checkpoint
    from trainerd.contract.metric_history import Place
    from trainerd.training.engine.checkpoint_manager import CheckpointManager
    from trainerd.training.engine.position import Position
    from trainerd.training.engine.run_state import RunState
    from trainerd.training.engine.silent_history import SilentHistory
    from trainerd.training.engine.suspicions import Suspicions
    from trainerd.training.settings import Settings
    from trainerd.training.state.restore import StateTree


class ResumeEvidence:
    """Finds out whether the resume of one attempt is exact.

    Args:
        settings: Settings of the session.
        state: State of the run.
        checkpoints: Checkpoints of the run.
        history: Metric history.
        suspicions: Known causes of inexactness.
        is_alone: Whether this is the only rank.

    Attributes:
        witness: Contents of the next batch at a drain.
    """

    def __init__(
        self,
        settings: Settings,
        state: RunState,
        checkpoints: CheckpointManager,
        history: HistoryWriter | SilentHistory,
        suspicions: Suspicions,
        *,
        is_alone: bool,
    ) -> None:
        self.witness = Witness(settings.run.witness, state.position, is_alone=is_alone)
        self._settings = settings
        self._state = state
        self._checkpoints = checkpoints
        self._history = history
        self._suspicions = suspicions
        self._is_alone = is_alone
        self._uncompared = Patterns(settings.uncompared)
        self._states = SelfComparison(state, is_left_out=self._uncompared.match)
        self._proof: ResumeProof | None = None
        suspicions.listen(self.add)

    # ------------------------------------------------------------------ at the resume

    def begin(
        self,
        checkpoint: Checkpoint | None,
        tree: StateTree | None,
        place: Position,
        fingerprint: Mapping[str, Any],
        fields: Sequence[FieldVerdict],
    ) -> int:
        """Say how this attempt begins, and get ready to compare.

        Args:
            checkpoint: What was restored; None if the run begins at step 0.
            tree: What is in it.
            place: Its position.
            fingerprint: What the program looks like.
            fields: What of it changed since the checkpoint was made.

        Returns:
            How much of the metric history belongs to the checkpoint.
        """
        history = self._history
        if not isinstance(history, HistoryWriter):
            return checkpoint.manifest.history_bytes if checkpoint else 0
        former: ResumeRecord | None = None
        with contextlib.suppress(CorruptError, OSError):
            former = read_resume(self._settings.run.resume)
        reasons = list(resume_checks.fallback_reasons(self._checkpoints.store, checkpoint))
        keep_bytes = 0
        if checkpoint is not None:
            keep_bytes, short = self._history_part(checkpoint, former)
            reasons += [short] if short is not None else []
            reasons += self._changes(checkpoint, fingerprint, fields)
            if tree is not None:
                reasons += resume_checks.scaler_reasons(self._state.objects, tree.objects)
        elif history.position_bytes <= len(HEADER) and not reasons:
            return 0  # the first attempt
        is_clean = former is None or not (former.differing or former.differing_before)
        first_runs = self._first_runs(checkpoint, keep_bytes, with_superseded=is_clean)
        self._say_beginning(checkpoint, len(first_runs.rows))
        record = ResumeRecord(
            attempt=self._settings.attempt,
            checkpoint=checkpoint.name if checkpoint else None,
            step=self._state.position.step,
            source="memory" if self._checkpoints.is_from_memory(checkpoint) else "disk",
            reasons=tuple(reasons),
            resumes=former.resumes + 1 if former else 1,
            differing_before=former.differing_before + former.differing if former else 0,
            changes=tuple([str(field) for field in fields]),
            keep_bytes=keep_bytes,
        )
        self._proof = ResumeProof(
            self._settings.run.resume,
            record,
            first_runs.rows,
            first_reports=first_runs.reports if checkpoint is not None else {},
            digest=f"{self._state.digest:016x}" if self._state.digest else None,
            uncompared=self._uncompared,
            is_deterministic=torch.are_deterministic_algorithms_enabled(),
            say=say,
        )
        self._proof.add(*self._suspicions.reasons)
        if checkpoint is not None and tree is not None:
            self._compare_restored(self._proof, checkpoint, tree, place, is_clean=is_clean)
        return keep_bytes

    def _history_part(self, checkpoint: Checkpoint, former: ResumeRecord | None) -> tuple[int, Reason | None]:
        """Return how much of the history belongs to the checkpoint, and a reason if some is missing."""
        keep_bytes, size_bytes = checkpoint.manifest.history_bytes, self._history.position_bytes
        if former is not None and former.checkpoint == checkpoint.name:
            # It was too short at the last resume from there, and is longer only for what was run again.
            known = [each for each in former.reasons if each.kind in {"history-short", "history-missing"}]
            if known and former.keep_bytes < keep_bytes:
                return former.keep_bytes, known[0]
        reason = resume_checks.history_reason(
            self._settings.run.metrics, size_bytes=size_bytes, keep_bytes=keep_bytes
        )
        return min(keep_bytes, max(size_bytes, len(HEADER))), reason

    def _changes(
        self, checkpoint: Checkpoint, fingerprint: Mapping[str, Any], fields: Sequence[FieldVerdict]
    ) -> list[Reason]:
        """Return what is known of the checkpoint and the program.

        Parameters that differ were refused before.
        """
        job = self._settings.run_name
        copied = resume_checks.another_run_reason(self._checkpoints.store, checkpoint, job=job)
        # Of a run that ended with this checkpoint, only if something is trained: see `prolongs`.
        was_finished = not checkpoint.manifest.is_final and self._settings.run.finished.exists()
        return [
            *([copied] if copied is not None else []),
            *resume_checks.option_reasons(checkpoint.manifest.fingerprint, fingerprint),
            *(resume_checks.schedule_end_reasons(self._state.objects) if was_finished else ()),
            *resume_checks.change_reasons(fields),
        ]

    def _first_runs(
        self, checkpoint: Checkpoint | None, keep_bytes: int, *, with_superseded: bool
    ) -> FirstRuns:
        world_size = self._settings.environment.world_size
        if checkpoint is not None and checkpoint.manifest.world_size != world_size:
            return FirstRuns({}, {})  # the steps are other ones
        with contextlib.suppress(OSError):
            return read_first_runs(
                self._settings.run.metrics,
                keep_bytes,
                after_step=self._state.position.step if checkpoint is not None else -1,
                with_superseded=with_superseded and checkpoint is not None,
            )
        return FirstRuns({}, {})

    def _say_beginning(self, checkpoint: Checkpoint | None, rows: int) -> None:
        begins = f"resumes from {checkpoint.name}" if checkpoint is not None else "begins at step 0"
        if not rows:
            then = "no later step was run before, so none will be compared"
        else:
            then = f"{counted(rows, 'later step was', 'later steps were')} run before and will be compared"
        say(f"trainerd: attempt {self._settings.attempt} {begins}; {then}")

    def _compare_restored(
        self, proof: ResumeProof, checkpoint: Checkpoint, tree: StateTree, place: Position, *, is_clean: bool
    ) -> None:
        has_witness = self.witness.expect(checkpoint, place, proof.witnessed)
        if not has_witness and checkpoint.manifest.reason in {"drain", FLUSHED}:
            proof.add(
                Reason(
                    "no-witness",
                    checkpoint.name,
                    "it was saved without a digest of the next batch, so the batch could not be compared",
                )
            )
        if not self._is_alone or checkpoint.manifest.world_size != 1:
            return
        newer = newer_checkpoints(self._checkpoints.store, checkpoint)
        if not is_clean:  # what was run since is known to be different
            newer = [each for each in newer if each.manifest.lineage == checkpoint.manifest.lineage]
        self._states.expect(newer, proof.passed)
        with contextlib.suppress(
            TrainerdError
        ):  # an object without an exact form on disk: a save will say so
            found = restored_difference(tree, self._state, is_left_out=self._uncompared.match)
            detail = f"it was not restored as it is in {checkpoint.name}: {found.detail}" if found else ""
            hint = "its load_state_dict must restore all that its state_dict returns"
            proof.read_back(Reason("not-restored", found.path, detail, hint) if found else None)

    # ------------------------------------------------------------------ as the run goes on

    def add(self, reason: Reason) -> None:
        """Take in a reason for the verdict."""
        if self._proof is not None:
            self._proof.add(reason)

    def prolongs(self) -> None:
        """A run that was finished trains on: say what had an end there."""
        if self._proof is not None:
            for reason in resume_checks.schedule_end_reasons(self._state.objects):
                say(f"trainerd: resume: {reason}")
                self._proof.add(reason)

    def trained_nothing(self) -> None:
        """A run that was finished ends again with nothing trained: no cause of inexactness had an effect."""
        if self._proof is not None:
            self._proof.trained_nothing()

    def step_done(self, place: Place, written: tuple[str | None, Mapping[str, Any]] | None) -> None:
        """Compare a step that was done just now."""
        if self._proof is not None and not self._proof.is_over:
            self._proof.step_done(place, written)

    def reported(self, place: tuple[int, int], scores: Mapping[str, float]) -> None:
        """Compare scores that were reported at a step of an epoch."""
        if self._proof is not None:
            self._proof.reported(place, scores)

    def pass_boundary(self, *, is_final: bool = False) -> None:
        """Compare the state at the boundary crossed just now."""
        self._states.pass_boundary(is_final=is_final)

    def close(self) -> None:
        """The attempt ends here: leave on record what is known."""
        if self._proof is not None:
            self._proof.close()
