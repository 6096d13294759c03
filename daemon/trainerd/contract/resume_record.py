"""The record of the newest resume.

``resume.json`` in the run folder: rank 0 writes it; the supervisor and people read it.

It holds what was compared, the reasons that were found, and the verdict that follows from them. `judge` is
the only place where the word is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from trainerd.contract import codec
from trainerd.contract.counted import counted
from trainerd.contract.durable import read_file, write_file
from trainerd.contract.regular_file import NotRegularError
from trainerd.contract.verdict import Reason, Verdict
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

FORMAT: Final = "trainerd.resume/1"

BYTES_MAX: Final = 1 << 20
"""A longer file is not a record."""
REASONS_MAX: Final = 40
TEXT_MAX: Final = 600
"""How many reasons a record keeps, and how many characters of each text."""

DIFFERENCES: Final = frozenset(
    {
        "different-batch",
        "different-samples",
        "different-state",
        "different-value",
        "missing-row",
        "not-restored",
    }
)
"""Kinds of reasons that say what a comparison found."""

ENVIRONMENT: Final = frozenset({"another-run", "option-kept", "schedule-kept", "schedule-over"})
"""Kinds of causes that may change nothing, besides those that begin with ``changed-``."""

NOTICES: Final = frozenset(
    {"fallback", "no-samples", "no-training", "no-values", "no-witness", "not-run-again"}
)
"""Kinds of reasons that say what happened or what could not be compared, and are no cause of inexactness."""


Source = Literal["disk", "memory"]


@dataclass(frozen=True)
class ResumeRecord:
    """How the newest resume of a run went.

    Attributes:
        attempt: The attempt that resumed.
        checkpoint: What it went on from; None began at step 0, after an attempt that died before its first
            checkpoint.
        step: Its step.
        source: Where it was when the attempt began: on disk, or only in memory.
        verdict: One of the four words.
        reasons: What led to it.
        resumes: How many resumes the run has had, this one included.
        lost: Rows beyond the checkpoint in the history: their steps are run again.
        run_again: So many of these rows were logged again by now.
        compared: So many of those were compared in both samples and at least one value.
        differing: So many rows differed.
        differing_before: The same, over all resumes before this one.
        states: Checkpoints of an earlier run of the same steps whose whole state was compared and is equal.
        is_read_back: Whether the restored objects were read back and equal the checkpoint; None was not
            looked at.
        is_witnessed: Whether the next batch has the contents that the witness of a drain says; None was not
            compared.
        first_difference: The first one, in words.
        likely_cause: Of the differences, in words.
        is_over: Whether no further step will be compared.
        changes: Fields of the program's fingerprint that changed since the checkpoint was made: a line each,
            ``libraries.torch: 2.12 → 2.13``.
        keep_bytes: How much of the metric history belongs to the checkpoint.
        wall_s: When the record was written, in seconds since the epoch.
    """

    attempt: int
    checkpoint: str | None
    step: int
    source: Source = "disk"
    verdict: Verdict = "unchecked"
    reasons: tuple[Reason, ...] = ()
    resumes: int = 1
    lost: int = 0
    run_again: int = 0
    compared: int = 0
    differing: int = 0
    differing_before: int = 0
    states: int = 0
    is_read_back: bool | None = None
    is_witnessed: bool | None = None
    first_difference: str | None = None
    likely_cause: str | None = None
    is_over: bool = False
    changes: tuple[str, ...] = ()
    keep_bytes: int = 0
    wall_s: float = 0.0


def write_resume(path: Path, record: ResumeRecord) -> None:
    """Write the record durably, in place of the one before.

    Raises:
        SpaceError: The disk is full or read-only.
    """
    write_file(path, codec.to_json(record, FORMAT))


def read_resume(path: Path) -> ResumeRecord | None:
    """Read the record, None if the run was never resumed.

    Raises:
        CorruptError: There is one and it cannot be read.
        OSError: It could not be looked at.
    """
    try:
        data = read_file(path, bytes_max=BYTES_MAX)
    except FileNotFoundError:
        return None
    except NotRegularError as error:
        raise CorruptError(f"{path} {error.strerror}") from error
    try:
        plain = codec.load(data, FORMAT, source=path)
        record = codec.from_plain(plain, ResumeRecord, source=path)
    except RecursionError as error:
        raise CorruptError(f"{path}: it lies too deep") from error
    return record if "verdict" in plain else _of_an_older_trainerd(record, plain)


def _of_an_older_trainerd(record: ResumeRecord, plain: dict[str, Any]) -> ResumeRecord:
    """Judge a record without a verdict: it counted rows of which nothing had been compared."""
    record = replace(record, run_again=record.compared, compared=0)
    return replace(record, verdict="different" if plain.get("differing") else "unchecked")


def judge(record: ResumeRecord) -> Verdict:
    """Return the verdict that follows from what was found and compared.

    A difference outweighs everything. A known cause of inexactness outweighs comparisons, unless it is only
    a change of the environment and all steps that were run again equal those of the first run.
    """
    kinds = {reason.kind for reason in record.reasons}
    if record.differing or record.first_difference is not None or kinds & DIFFERENCES:
        return "different"
    environment = {reason.kind for reason in record.reasons if is_of_environment(reason)}
    if kinds - environment - NOTICES:
        return "suspect"
    is_proven_by_steps = bool(record.states) or 0 < record.lost == record.compared
    if environment and not is_proven_by_steps:
        return "suspect"
    if record.compared or record.states or (record.is_read_back and record.is_witnessed):
        return "exact"
    return "unchecked"


def summary(record: ResumeRecord) -> str:
    """Say in one line what is known about the resume. It begins with the verdict."""
    earlier = (
        f"; {_steps(record.differing_before)} differed in earlier resumes" if record.differing_before else ""
    )
    source = "; from a copy in memory" if record.source == "memory" else ""
    return f"{record.verdict}: {_SUMMARIES[record.verdict](record)}{source}{earlier}"


def _different(record: ResumeRecord) -> str:
    of = f"{record.differing} of {_steps(record.run_again)} run again; " if record.differing else ""
    cause = f"; likely {record.likely_cause}" if record.likely_cause else ""
    return f"{of}{record.first_difference}{cause}"


def _suspect(record: ResumeRecord) -> str:
    causes = [each for each in record.reasons if each.kind not in NOTICES | DIFFERENCES]
    causes.sort(key=is_of_environment)
    more = f" (and {len(causes) - 1} more)" if len(causes) > 1 else ""
    return f"{causes[0]}{more}{_so_far(record)}" if causes else "a cause that is not recorded"


def is_of_environment(reason: Reason) -> bool:
    """Return whether a reason is a change of the program or its place, which may change nothing."""
    return reason.kind in ENVIRONMENT or reason.kind.startswith("changed-")


def _so_far(record: ResumeRecord) -> str:
    if not record.lost:
        return ""
    return f"; {record.compared} of {_steps(record.lost)} on record compared, equal in samples and values"


def _exact(record: ResumeRecord) -> str:
    found = []
    if record.states:
        states = counted(record.states, "checkpoint") if record.states > 1 else "a checkpoint"
        found.append(f"the whole state equals that of {states} of an earlier run")
    if record.compared:
        of = "" if record.compared == record.lost else f"{record.compared} of "
        what = "run again" if record.compared == record.lost else "on record run again and compared"
        found.append(f"{of}{_steps(record.lost)} {what}, equal in samples and values")
    if record.is_witnessed and record.is_read_back:
        found.append("the restored state and the contents of the next batch are equal")
    return "; ".join(found)


def _unchecked(record: ResumeRecord) -> str:
    if record.run_again:
        return (
            f"{_steps(record.run_again)} run again, none compared in both samples and values"
            f"{_first_notice(record)}"
        )
    if record.lost:
        when = "none" if record.is_over else "none yet"
        return f"{_steps(record.lost)} on record, {when} run again"
    return f"no step is run again{_first_notice(record)}"


def _first_notice(record: ResumeRecord) -> str:
    for reason in record.reasons:
        if reason.kind.startswith("no-"):
            return f": {reason.detail}"
    return ""


def _steps(count: int) -> str:
    return counted(count, "step")


_SUMMARIES: Final = {
    "exact": _exact,
    "unchecked": _unchecked,
    "suspect": _suspect,
    "different": _different,
}
