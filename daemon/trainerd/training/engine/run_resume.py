"""The way back to the newest checkpoint: find it, restore it, and compare what can be compared.

Invariants:
    After a resume in the middle of an epoch, the state is put back a second time where the interrupted loop
    begins: what the code before it drew and changed was done before the checkpoint already.
    Of several ranks, all resume from the same checkpoint or none does.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from trainerd.checkpoint.fingerprint import DATA, changes, compared
from trainerd.contract.metric_history import HEADER, read_lost
from trainerd.contract.resume_record import ResumeRecord, read_resume
from trainerd.errors import CorruptError, MismatchError
from trainerd.training.distributed.joint_resume import confirm_together, resume_together
from trainerd.training.engine.history import HistoryWriter
from trainerd.training.engine.position import Position
from trainerd.training.engine.resume_proof import ResumeProof
from trainerd.training.interruption.leaving import say

if TYPE_CHECKING:
    from trainerd.checkpoint.store import Checkpoint
    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.engine.checkpoint_manager import CheckpointManager
    from trainerd.training.engine.run_state import RunState
    from trainerd.training.engine.silent_history import SilentHistory
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

    Attributes:
        position: Boundary of the checkpoint.
        proof: Compares the steps that are run again, None if there are none.
    """

    def __init__(
        self,
        settings: Settings,
        state: RunState,
        checkpoints: CheckpointManager,
        history: HistoryWriter | SilentHistory,
        ranks: Ranks | None,
    ) -> None:
        self.position = Position()
        self.proof: ResumeProof | None = None
        self._settings = settings
        self._state = state
        self._checkpoints = checkpoints
        self._history = history
        self._ranks = ranks
        self._pending: StateTree | None = None
        self._saved_data: dict[str, dict[str, int]] = {}
        self._changes: tuple[str, ...] = ()

    @property
    def is_pending(self) -> bool:
        """Whether the interrupted loop is not reached again yet."""
        return self._pending is not None

    # ------------------------------------------------------------------ once, at the beginning

    def restore(self) -> Checkpoint | None:
        """Restore the newest checkpoint that verifies and say so in the history; None if there is none.

        Raises:
            MismatchError: It does not fit what is tracked; nothing was changed.
        """
        self._state.fingerprint()  # of every attempt at the same moment: modules are loaded as it goes on
        checkpoint: Checkpoint | None = None
        position = self._state.position
        if (found := self._find()) is not None:
            checkpoint, tree = found
            self._put_back(tree, checkpoint)
            self._compare_fingerprints(checkpoint)
            self._checkpoints.lineage.adopt(checkpoint)
            self._checkpoints.sequence.prune_after_resume()
            self.position = position.copied()
            if position.is_inside_epoch():
                self._pending = tree
                position.loop = position.batch = 0
        if self._checkpoints.is_committer:
            self._settings.run.finished.unlink(missing_ok=True)
        keep_bytes = checkpoint.manifest.history_bytes if checkpoint else 0
        self._begin_proof(checkpoint, keep_bytes)
        self._history.begin(
            attempt=self._settings.attempt,
            checkpoint=checkpoint.name if checkpoint else None,
            step=position.step,
            keep_bytes=keep_bytes,
        )
        return checkpoint

    def _find(self) -> tuple[Checkpoint, StateTree] | None:
        if self._ranks is None:
            return self._checkpoints.find()
        return resume_together(self._ranks, self._checkpoints.store, self._find_newest, self._state.objects)

    def _find_newest(self) -> Checkpoint | None:
        found = self._checkpoints.find()
        return found[0] if found is not None else None

    def _put_back(self, tree: StateTree, checkpoint: Checkpoint) -> None:
        problem: MismatchError | None = None
        try:
            self._state.restore(tree, source=checkpoint.name)
        except MismatchError as error:
            problem = error
        if self._ranks is not None:
            confirm_together(self._ranks, problem)
        if problem is not None:
            raise problem
        before, now = checkpoint.manifest.world_size, self._settings.environment.world_size
        if before != now and self._checkpoints.is_committer:
            say(
                f"trainerd: {checkpoint.name} is of {before} ranks and goes on with {now}: every "
                "sample of the epoch "
                "is still used once, but steps are other ones than before: the global batch is of "
                "another size, and "
                "the random generators of ranks other than 0 begin anew"
            )

    def _compare_fingerprints(self, checkpoint: Checkpoint) -> None:
        """Say what is not as it was when the checkpoint was made.

        What parameters differ was refused before.
        """
        saved = checkpoint.manifest.fingerprint
        self._saved_data = dict(saved.get(DATA, {}))
        found = changes(compared(saved, self._state.fingerprint(), is_inside_epoch=False))
        self._changes = tuple(map(str, found))
        if self._checkpoints.is_committer:
            what = (
                f"compatible, but not the same: {', '.join(self._changes)}" if found else "all is as it was"
            )
            say(f"trainerd: attempt {self._settings.attempt} goes on from {checkpoint.name}; {what}")

    def _begin_proof(self, checkpoint: Checkpoint | None, keep_bytes: int) -> None:
        """Get ready to compare the steps that are run again with what the history says of them."""
        paths = self._settings.run
        if not isinstance(self._history, HistoryWriter) or (
            checkpoint is None and self._history.position_bytes <= len(HEADER)
        ):
            return
        former: ResumeRecord | None = None
        with contextlib.suppress(CorruptError):
            former = read_resume(paths.resume)
        is_same_sharding = checkpoint is None or (
            checkpoint.manifest.world_size == self._settings.environment.world_size
        )
        record = ResumeRecord(
            attempt=self._settings.attempt,
            checkpoint=checkpoint.name if checkpoint else None,
            step=self._state.position.step,
            resumes=former.resumes + 1 if former else 1,
            differing_before=former.differing_before + former.differing if former else 0,
            changes=self._changes,
        )
        self.proof = ResumeProof(
            paths.resume,
            record,
            read_lost(paths.metrics, keep_bytes) if is_same_sharding else {},
            is_deterministic=torch.are_deterministic_algorithms_enabled(),
            say=say,
        )

    # ------------------------------------------------------------ until the interrupted loop is reached again

    def skips_loop(self) -> bool:
        """Tell whether the training loop that begins now was finished before the checkpoint.

        If so, it is over.
        """
        position = self._state.position
        if self._pending is None or position.loop >= self.position.loop:
            return False
        position.end_loop()
        if position.key() == self.position.key():
            self.restore_again()
        return True

    def check_data(self, loop: int, extent: dict[str, int]) -> None:
        """Check that the data is as long as it was, if the loop that begins goes on in the middle of it.

        Raises:
            MismatchError: It is not: the batches that are left would be other ones.
        """
        saved = self._saved_data.pop(str(loop), None)
        if saved is None:
            return  # compared before, or there was none
        goes_on = self._pending is not None and loop == self.position.loop
        is_inside = goes_on and self.position.batch > 0
        found = changes(compared({DATA: saved}, {DATA: extent}, is_inside_epoch=is_inside))
        if any(each.verdict == "refused" for each in found):
            raise MismatchError(
                f"{self._source} is in the middle of an epoch, and the data has another length",
                [str(each) for each in found],
                hint="give it the data that it had until this epoch ends, or resume from the end of an epoch",
            )
        self._changes += tuple(map(str, found))
        for each in found:
            say(f"trainerd: {each}: the order of the data is another one from here on")

    def restore_again(self) -> None:
        """Put everything back once more, if the interrupted loop is the one that begins now."""
        tree, self._pending = self._pending, None
        if tree is not None:
            self._state.restore(tree, source=self._source)

    def end_epoch(self) -> None:
        """The epoch that was interrupted is over."""
        self._pending = None

    def close(self) -> None:
        """Leave on record what was compared so far."""
        if self.proof is not None:
            self.proof.close()

    @property
    def _source(self) -> str:
        checkpoint = self._checkpoints.lineage.resumed_from
        assert checkpoint is not None
        return checkpoint.name
