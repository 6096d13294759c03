"""Compares steps that are run again with what the history says of them.

Samples are compared by digest, losses to the bit.

Invariants:
    Nothing here changes what is trained or what is written into the history.
    The record is durable when the resume begins, when the first difference is found, and when all is
    compared. A difference never stops a run: it is said, counted and recorded. Nor does a record that cannot
    be written.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trainerd.contract.resume_record import ResumeRecord, verdict, write_resume
from trainerd.errors import SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Place = tuple[int, int, int]
"""Step, epoch and batch of a row."""


class ResumeProof:
    """Compares the steps of one attempt with those that were lost.

    Args:
        path: Of the record.
        record: As the resume begins.
        lost: The lost rows by their place.
        is_deterministic: Whether torch was told to use deterministic kernels only.
        say: Tells the user.

    Attributes:
        is_over: Whether everything was compared.
    """

    def __init__(
        self,
        path: Path,
        record: ResumeRecord,
        lost: Mapping[Place, dict[str, Any]],
        *,
        is_deterministic: bool,
        say: Callable[[str], None],
    ) -> None:
        self._path = path
        self._lost = dict(lost)
        self._last_step = max((step for step, _, _ in lost), default=record.step)
        self._is_deterministic = is_deterministic
        self._say = say
        self.record = replace(record, lost=len(lost), is_over=not lost)
        self.is_over = not lost
        self._write()

    def compare(self, place: Place, digest: str | None, measured: Mapping[str, Any]) -> None:
        """Compare a step that was done just now, if it was lost."""
        row = self._lost.pop(place, None)
        if row is not None:
            found = difference(row, digest, measured)
            self.record = replace(self.record, compared=self.record.compared + 1)
            if found is not None:
                self._note(place[0], found, is_other_data=digest != row.get("digest", digest))
        if not self._lost or place[0] > self._last_step:
            self.close()

    def close(self) -> None:
        """Nothing more will be compared, or the attempt ends here."""
        if self.is_over:
            return
        self.is_over = True
        self.record = replace(self.record, is_over=not self._lost)
        self._lost.clear()
        self._write()
        if self.record.compared:
            self._say(f"trainerd: resume: {verdict(self.record)}")

    def _note(self, step: int, found: str, *, is_other_data: bool) -> None:
        self.record = replace(self.record, differing=self.record.differing + 1)
        if self.record.differing > 1:
            return
        cause = likely_cause(
            self.record.changes, is_other_data=is_other_data, is_deterministic=self._is_deterministic
        )
        self.record = replace(self.record, first_difference=f"step {step}: {found}", likely_cause=cause)
        self._write()
        self._say(f"trainerd: step {step} was run again and is not what it was: {found}; likely {cause}")

    def _write(self) -> None:
        self.record = replace(self.record, wall_s=time.time())
        with contextlib.suppress(SpaceError, OSError):  # what cannot be put on record is said all the same
            write_resume(self._path, self.record)


def difference(row: Mapping[str, Any], digest: str | None, measured: Mapping[str, Any]) -> str | None:
    """Return in what a step differs from its row, None if in nothing.

    Compared are the digest of the samples and every measurement whose name has ``loss`` in it; others, such
    as samples a second, may differ.
    """
    former = row.get("digest")
    if isinstance(former, str) and digest is not None and former != digest:
        return "it used other samples"
    for name, value in measured.items():
        if "loss" in name.lower() and name in row and not _is_same(row[name], value):
            return f"{name} {row[name]!r} became {value!r}"
    return None


def likely_cause(changes: tuple[str, ...], *, is_other_data: bool, is_deterministic: bool) -> str:
    """Return what most probably made a step differ."""
    if changes:
        return f"because of what changed: {', '.join(changes)}"
    if is_other_data:
        return "a dataset or sampler that is not the same as before"
    if not is_deterministic:
        return (
            "nondeterministic kernels, for torch.use_deterministic_algorithms(True) is not on; "
            "or state that is not tracked"
        )
    return "state that is not tracked, or random numbers from a generator of your own"


def _is_same(before: Any, now: Any) -> bool:
    return bool(before == now or (before != before and now != now))  # noqa: PLR0124 - NaN is not equal to itself
