"""The record of the newest resume.

``resume.json`` in the run folder, written by rank 0, read by whoever asks.

Steps that are run again after a crash are compared with what the metric history says of them: the samples
that they used, by digest, and their losses. The record says how many were compared and how many were not what
they had been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract import codec
from trainerd.contract.durable import read_file, write_file
from trainerd.contract.regular_file import NotRegularError
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

FORMAT: Final = "trainerd.resume/1"


@dataclass(frozen=True)
class ResumeRecord:
    """How the newest resume of a run went.

    Attributes:
        attempt: The attempt that resumed.
        checkpoint: What it went on from; None began anew, after an attempt that died before its first
            checkpoint.
        step: Its step.
        resumes: How many resumes the run has had, this one included.
        lost: Steps after the checkpoint of which the history knows: they are run again.
        compared: So many of them were run again and compared by now.
        differing: So many of those were not what they had been.
        differing_before: The same, over all resumes before this one.
        first_difference: The first one, in words.
        likely_cause: Of the differences, in words.
        is_over: Whether nothing more will be compared.
        changes: What is not as it was when the checkpoint was made: a line each, ``libraries.torch: 2.12 →
            2.13``.
        wall_s: When the record was written, in seconds since the epoch.
    """

    attempt: int
    checkpoint: str | None
    step: int
    resumes: int = 1
    lost: int = 0
    compared: int = 0
    differing: int = 0
    differing_before: int = 0
    first_difference: str | None = None
    likely_cause: str | None = None
    is_over: bool = False
    changes: tuple[str, ...] = ()
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
        data = read_file(path)
    except FileNotFoundError:
        return None
    except NotRegularError as error:
        raise CorruptError(f"{path} {error.strerror}") from error
    return codec.from_json(data, ResumeRecord, FORMAT, source=path)


def verdict(record: ResumeRecord) -> str:
    """Say in a few words whether the resume was exact."""
    if record.differing:
        of = f"{record.differing} of {_steps(record.compared)} run again"
        cause = f"; likely {record.likely_cause}" if record.likely_cause else ""
        return f"differs: {of}; {record.first_difference}{cause}"
    earlier = f"; {record.differing_before} differed in resumes before" if record.differing_before else ""
    if not record.lost:
        return f"exact: no step had to be run again{earlier}"
    if record.compared < record.lost:
        state = "only" if record.is_over else "so far"
        return f"exact, {state} {record.compared} of {_steps(record.lost)} run again{earlier}"
    return f"exact: {_steps(record.compared)} run again, equal in samples and loss{earlier}"


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"
