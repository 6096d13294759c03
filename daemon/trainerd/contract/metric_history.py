"""The metric history: ``metrics.jsonl``, append-only, with a marker at each resume.

==============  ==========================================================================================
line            is
==============  ==========================================================================================
header          ``{"format": "trainerd.metrics/1"}``, the first line
row             one a step: ``{"step": 1, "epoch": 0, "batch": 0, "digest": "9f0c…", "loss": 0.5}``
report          scores: ``{"report": true, "step": 40, "epoch": 0, "accuracy": 0.9}``
resume marker   ``{"resume": {"attempt": 2, "checkpoint": "step-000000020", "step": 20, "keep_bytes": 812}}``
==============  ==========================================================================================

A row's digest says which samples all steps so far have used, in which order; it is there where that is known.

Nothing is ever rewritten. A marker says how many bytes of the file the checkpoint it names stands for: the
lines from there up to the marker were written by steps that were lost and are run again. So a reader gets one
value a step, and the whole truth is still there to look at. A line torn by a crash is ignored; the next
writer ends it with a newline. Numbers that JSON lacks are the strings ``nan``, ``inf`` and ``-inf``.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.durable import read_file
from trainerd.contract.regular_file import open_regular
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT: Final = "trainerd.metrics/1"
HEADER: Final = json.dumps({"format": FORMAT}).encode() + b"\n"

LOST_BYTES_MAX: Final = 16 << 20
"""How much of a history is looked at for steps that are run again, in bytes."""

_NOT_FINITE: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class Resume:
    """Where a run went on.

    Attributes:
        attempt: The attempt that wrote the marker.
        checkpoint: Name of the checkpoint it resumed from; None began anew.
        step: Its step.
        keep_bytes: How much of the file that checkpoint stands for.
    """

    attempt: int
    checkpoint: str | None
    step: int
    keep_bytes: int


@dataclass(frozen=True)
class History:
    """What a run has measured, one value a step.

    Attributes:
        rows: One a step, by step.
        reports: Scores, in the order in which they were reported.
        resumes: Where the run went on, oldest first.
        superseded: Rows and reports of steps that were lost and run again.
    """

    rows: tuple[dict[str, Any], ...] = ()
    reports: tuple[dict[str, Any], ...] = ()
    resumes: tuple[Resume, ...] = ()
    superseded: tuple[dict[str, Any], ...] = ()


def encode_line(record: dict[str, Any]) -> bytes:
    """Encode one line. Floats are written exactly."""
    try:
        return json.dumps(record, allow_nan=False).encode() + b"\n"
    except ValueError:
        return json.dumps({k: _finite(v) for k, v in record.items()}, allow_nan=False).encode() + b"\n"


def encode_row(
    step: int, epoch: int, batch: int, measured: dict[str, Any], digest: str | None = None
) -> bytes:
    """Encode the row of a step: the same line as `encode_line` writes, in a third of the time.

    Args:
        step: Steps finished.
        epoch: Epoch of the step.
        batch: Its last batch.
        measured: Numbers by name; one of these names wins over what is said here.
        digest: Of the samples used so far.
    """
    if not _OUR_NAMES.isdisjoint(measured):
        ours = {"step": step, "epoch": epoch, "batch": batch} | ({"digest": digest} if digest else {})
        return encode_line(ours | measured)
    parts = [f'{{"step": {step}, "epoch": {epoch}, "batch": {batch}']
    if digest is not None:
        parts.append(f', "digest": "{digest}"')
    for name, value in measured.items():
        key = _keys.get(name)
        if key is None:
            key = _keys[name] = f", {json.dumps(name)}: "
        is_plain = type(value) in {float, int} and value - value == 0  # neither NaN nor infinite
        parts.append(f"{key}{value!r}" if is_plain else f"{key}{json.dumps(_finite(value))}")
    parts.append("}\n")
    return "".join(parts).encode()


_OUR_NAMES: Final = frozenset({"step", "epoch", "batch", "digest"})
_keys: Final[dict[str, str]] = {}


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def read_history(path: Path) -> History:
    """Read a run's history; a missing file is an empty one.

    Raises:
        CorruptError: It is not a metric history, or of another version.
        OSError: It could not be read.
    """
    try:
        data = read_file(path)
    except FileNotFoundError:
        return History()
    kept: list[tuple[int, dict[str, Any]]] = []
    superseded: list[dict[str, Any]] = []
    resumes: list[Resume] = []
    for offset, record in _records(data):
        if offset == 0:
            if record.get("format") != FORMAT:
                raise CorruptError(f"{path}: not a metric history of format {FORMAT}")
        elif "resume" in record:
            resume = Resume(**record["resume"])
            superseded += [row for begin, row in kept if begin >= resume.keep_bytes]
            kept = [(begin, row) for begin, row in kept if begin < resume.keep_bytes]
            resumes.append(resume)
        else:
            kept.append((offset, {key: _number(value) for key, value in record.items()}))
    return History(
        rows=tuple(row for _, row in kept if "report" not in row),
        reports=tuple(row for _, row in kept if "report" in row),
        resumes=tuple(resumes),
        superseded=tuple(superseded),
    )


def read_lost(path: Path, keep_bytes: int) -> dict[tuple[int, int, int], dict[str, Any]]:
    """Return the rows beyond the first `keep_bytes`, by step, epoch and batch: of steps that are run again.

    Where a step was run more than once, its newest row counts. Of very many, only the first are returned.

    Raises:
        OSError: The history could not be read.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        file.seek(max(keep_bytes, len(HEADER)))
        data = file.read(LOST_BYTES_MAX)
    return {
        (row["step"], row["epoch"], row["batch"]): {key: _number(value) for key, value in row.items()}
        for _, row in _records(data)
        if "report" not in row and {"step", "epoch", "batch"} <= row.keys()
    }


def _records(data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    offset = 0
    for line in data.split(b"\n"):
        if line:
            try:
                record = json.loads(line)
            except ValueError:  # torn by a crash, and ended by the writer that came after
                record = None
            if isinstance(record, dict):
                yield offset, record
        offset += len(line) + 1


def _number(value: Any) -> Any:
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
