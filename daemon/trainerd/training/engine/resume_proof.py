"""Evidence about one resume, and the record of it.

Evidence comes from steps that are run again and compared with their first run, from the restored state, which
is read back, from the witness of a drain, and from newer checkpoints that the run passes again.

Invariants:
    Nothing here changes what is trained or what is written into the history.
    The record is durable when the resume begins, at each new reason, and when all is compared. A difference
    never stops a run: it is said, counted and recorded. Nor does a record that cannot be written.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.resume_record import (
    DIFFERENCES,
    NOTICES,
    REASONS_MAX,
    TEXT_MAX,
    ResumeRecord,
    is_of_environment,
    judge,
    summary,
    write_resume,
)
from trainerd.contract.verdict import Reason
from trainerd.errors import SpaceError
from trainerd.training.engine.row_comparison import (
    OWN_NAMES,
    PLACE_NAMES,
    Patterns,
    compare_rows,
    differing_score,
    likely_cause,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from trainerd.contract.metric_history import Place, ReportPlace

_OTHER_DATA: Final = frozenset({"different-batch", "different-samples"})


_UNTRAINED: Final = Reason("no-training", "training", "the run was finished before, and nothing was trained")


class ResumeProof:
    """Collects what is known about the resume of one attempt.

    Args:
        path: Of the record.
        record: As the resume begins.
        first_runs: Rows of the first runs of the steps that are run again, by their place.
        first_reports: Scores that an earlier attempt reported after the checkpoint, by their place.
        digest: Of the samples up to the checkpoint.
        uncompared: Names that are not compared.
        is_deterministic: Whether torch was told to use deterministic kernels only.
        say: Tells the user.

    Attributes:
        record: What is known so far.
        is_over: Whether all steps were compared that can be.
    """

    def __init__(
        self,
        path: Path,
        record: ResumeRecord,
        first_runs: Mapping[Place, dict[str, Any]],
        *,
        first_reports: Mapping[ReportPlace, dict[str, Any]] | None = None,
        digest: str | None,
        uncompared: Patterns,
        is_deterministic: bool,
        say: Callable[[str], None],
    ) -> None:
        self._path = path
        self._first_runs = dict(sorted(first_runs.items()))
        self._last_step = max((step for step, _, _ in first_runs), default=record.step)
        self._first_reports = dict(first_reports or {})
        self._reports: Counter[tuple[int, int]] = Counter()
        self._former_digest = digest
        self._uncompared = uncompared
        self._is_deterministic = is_deterministic
        self._say = say
        self._is_closed = False
        self._said = ""
        self.record = replace(record, lost=len(first_runs))
        self.is_over = False
        for reason in record.reasons:
            say(f"trainerd: resume: {reason}")
        self._write()

    # ------------------------------------------------------------------ evidence

    def step_done(self, place: Place, written: tuple[str | None, Mapping[str, Any]] | None) -> None:
        """Compare a step that was done just now, if an earlier attempt ran it.

        Args:
            place: Its place.
            written: Digest of the samples so far and what was logged; None if nothing was.
        """
        if written is not None:
            self._compare(place, *written)
        if place[0] > self._last_step or not self._first_runs:
            self._finish(is_over=True)

    def reported(self, place: tuple[int, int], scores: Mapping[str, float]) -> None:
        """Compare scores that were reported just now, if an earlier attempt reported them.

        Args:
            place: Step and epoch.
            scores: By name.
        """
        number = self._reports[place]
        self._reports[place] += 1
        former = self._first_reports.pop((*place, number), None)
        if former is not None:
            difference = differing_score(former, scores, step=place[0], uncompared=self._uncompared)
            if difference is not None:
                self.differs(difference)

    def add(self, *reasons: Reason) -> None:
        """Take in reasons, unless the same ones are known or there are very many."""
        known = list(self.record.reasons)
        for reason in reasons:
            is_known = any((each.kind, each.where) == (reason.kind, reason.where) for each in known)
            if not is_known and len(known) < REASONS_MAX:
                known.append(_shortened(reason))
        if len(known) == len(self.record.reasons) or self._is_closed:
            return
        self.record = replace(self.record, reasons=tuple(known))
        self._write()

    def differs(self, reason: Reason) -> None:
        """Take in a difference that a comparison found, and say it."""
        if self.record.first_difference is None:
            cause = likely_cause(
                self.record.changes,
                [each for each in self.record.reasons if _is_suspicion(each)],
                is_other_data=reason.kind in _OTHER_DATA,
                is_deterministic=self._is_deterministic,
            )
            first = f"{reason.where}: {reason.detail}"[:TEXT_MAX]
            self.record = replace(self.record, first_difference=first, likely_cause=cause[:TEXT_MAX])
            self._say(f"trainerd: resume is not exact: {reason}; likely {cause}")
        elif reason.kind not in {each.kind for each in self.record.reasons}:
            self._say(f"trainerd: resume is not exact: {reason}")
        self.add(reason)

    def read_back(self, difference: Reason | None) -> None:
        """Note what reading the restored state back from the live objects found."""
        self.record = replace(self.record, is_read_back=difference is None)
        if difference is not None:
            self.differs(difference)

    def witnessed(self, difference: Reason | None) -> None:
        """Note what comparing the next batch with the witness of the drain found."""
        self.record = replace(self.record, is_witnessed=difference is None)
        if difference is not None:
            self.differs(difference)

    def passed(self, checkpoint: str, difference: Reason | None) -> None:
        """Note what comparing the whole state with a checkpoint of an earlier run found."""
        if difference is not None:
            self.differs(difference)
            return
        self.record = replace(self.record, states=self.record.states + 1)
        self._say(f"trainerd: resume: the whole state equals that of {checkpoint}, which an earlier run made")
        self._write()

    def trained_nothing(self) -> None:
        """The run was finished before, and nothing was trained: what changed in the program had no effect."""
        if not self._is_closed:
            left = [each for each in self.record.reasons if not is_of_environment(each)]
            self.record = replace(self.record, reasons=(_UNTRAINED, *left[: REASONS_MAX - 1]))
            self._finish(is_over=self.is_over)
            self._is_closed = True

    def close(self) -> None:
        """The attempt ends here: say what is known."""
        if not self._is_closed:
            self._finish(is_over=self.is_over)
            self._is_closed = True

    # ------------------------------------------------------------------ within

    def _compare(self, place: Place, digest: str | None, measured: Mapping[str, Any]) -> None:
        step = place[0]
        row = self._first_runs.pop(_place_in_history(place, measured), None)
        # Samples that are not known leave the digest as it is, which then says nothing about this step.
        known_digest = digest if digest != self._former_digest else None
        self._former_digest = digest
        is_same_program = not any(each.startswith(("code", "config")) for each in self.record.changes)
        if row is not None:
            found = compare_rows(
                row,
                known_digest,
                measured,
                step=step,
                uncompared=self._uncompared,
                is_same_program=is_same_program,
            )
            is_compared = found.has_samples and found.has_values
            self.record = replace(
                self.record,
                run_again=self.record.run_again + 1,
                compared=self.record.compared + is_compared,
                differing=self.record.differing + (found.difference is not None),
            )
            if found.difference is not None:
                self.differs(found.difference)
            elif not is_compared:
                self.add(_incomplete(step, has_samples=found.has_samples))
        if is_same_program and OWN_NAMES.isdisjoint(measured):
            self._note_passed_over(place)

    def _note_passed_over(self, place: Place) -> None:
        """Note rows of steps before this one that were not logged again."""
        for former in list(self._first_runs):
            if former >= place:
                return
            del self._first_runs[former]
            step, epoch, batch = former
            self.record = replace(self.record, differing=self.record.differing + 1)
            self.differs(
                Reason(
                    "missing-row",
                    f"step {step}",
                    f"the first run logged it in epoch {epoch} after batch {batch}, and it was passed "
                    "without that now",
                )
            )

    def _finish(self, *, is_over: bool) -> None:
        """Say the verdict, if it differs from the one said before, and record it."""
        self.is_over = True
        self.record = replace(self.record, is_over=is_over)
        self._write()
        if (said := summary(self.record)) != self._said:
            self._said = said
            self._say(f"trainerd: resume: {said}")

    def _write(self) -> None:
        self.record = replace(self.record, verdict=judge(self.record), wall_s=time.time())
        with contextlib.suppress(SpaceError, OSError):  # what cannot be put on record is said all the same
            write_resume(self._path, self.record)


def _place_in_history(place: Place, measured: Mapping[str, Any]) -> Place:
    """Return the place that a row has in the history: numbers of these names that a script logs win there."""
    step, epoch, batch = (measured.get(name, own) for name, own in zip(PLACE_NAMES, place, strict=True))
    return step, epoch, batch


def _is_suspicion(reason: Reason) -> bool:
    return reason.kind not in NOTICES | DIFFERENCES and not reason.kind.startswith("changed-")


def _incomplete(step: int, *, has_samples: bool) -> Reason:
    """Return why a step that was run again does not count as compared."""
    if has_samples:
        return Reason(
            "no-values",
            f"step {step}",
            "no number was logged under the same name in both runs",
            "log one in every step: session.log(loss=loss)",
        )
    return Reason(
        "no-samples",
        f"step {step}",
        "the history has no digest of the samples, which there is for batches in an order of the session's",
        "pass a stock DataLoader over a map-style dataset to session.batches",
    )


def _shortened(reason: Reason) -> Reason:
    return Reason(reason.kind, reason.where[:TEXT_MAX], reason.detail[:TEXT_MAX], reason.hint[:TEXT_MAX])
