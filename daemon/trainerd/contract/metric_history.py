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

import bisect
import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.durable import read_file
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

FORMAT: Final = "trainerd.metrics/1"
HEADER: Final = json.dumps({"format": FORMAT}).encode() + b"\n"

LOST_BYTES_MAX: Final = 16 << 20
"""How much of a history is looked at for steps that are run again, in bytes."""

MARKER: Final = b'{"resume": {'
"""What the line of a marker begins with."""

Place = tuple[int, int, int]
"""Step, epoch and batch of a row."""

ReportPlace = tuple[int, int, int]
"""Step and epoch of a report, and its number among those of that step, from 0."""

_NOT_FINITE: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class Resume:
    """Where a run went on.

    Attributes:
        attempt: The attempt that wrote the marker.
        checkpoint: Name of the checkpoint it resumed from; None if it began at step 0.
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
        data = read_file(path, bytes_max=None)
    except FileNotFoundError:
        return History()
    records: list[tuple[int, dict[str, Any]]] = []
    resumes: list[Resume] = []
    marks: list[tuple[int, int]] = []
    for offset, record in _records(data):
        if offset == 0:
            if record.get("format") != FORMAT:
                raise CorruptError(f"{path}: not a metric history of format {FORMAT}")
        elif "resume" in record:
            resumes.append(Resume(**record["resume"]))
            marks.append((offset, resumes[-1].keep_bytes))
        else:
            records.append((offset, {key: _number(value) for key, value in record.items()}))
    parts = lost_parts(marks)
    kept = [record for offset, record in records if not is_within(parts, offset)]
    return History(
        rows=tuple([record for record in kept if "report" not in record]),
        reports=tuple([record for record in kept if "report" in record]),
        resumes=tuple(resumes),
        superseded=tuple([record for offset, record in records if is_within(parts, offset)]),
    )


def lost_parts(marks: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of a history that were lost and run again, as begin and end in bytes, in order.

    A part that was lost only after a checkpoint was saved counts again where the run resumes from that
    checkpoint: a rollback was undone.

    Args:
        marks: Of each resume marker, oldest first: its offset, and how much of the file it keeps.
    """
    parts: list[tuple[int, int]] = []
    bound: float = math.inf
    for at, keep_bytes in reversed(marks):
        if at < bound:
            parts.append((keep_bytes, at))
            bound = min(bound, keep_bytes)
    return parts[::-1]


def is_within(parts: Sequence[tuple[int, int]], offset: int) -> bool:
    """Return whether an offset is in one of the parts, which are in order and do not overlap."""
    following = bisect.bisect_right(parts, offset, key=lambda part: part[0])
    return following > 0 and offset < parts[following - 1][1]


@dataclass(frozen=True)
class FirstRuns:
    """What the first attempt after a checkpoint wrote.

    Attributes:
        rows: Rows of steps, by their place.
        reports: Scores given to ``session.report()``, by their place.
    """

    rows: dict[Place, dict[str, Any]]
    reports: dict[ReportPlace, dict[str, Any]]


def read_first_runs(
    path: Path, keep_bytes: int, *, after_step: int, with_superseded: bool = False
) -> FirstRuns:
    """Return the rows of steps that are run again from a checkpoint on, and the scores reported after it.

    Where a step was run or a score reported more than once, the *first* one counts: two attempts that make
    the same mistake would otherwise equal each other. Of very many, only the first are returned.

    Args:
        path: The history.
        keep_bytes: How much of it belongs to the checkpoint.
        after_step: Step of the checkpoint.
        with_superseded: Whether to look at the rows of later steps in the part that belongs to the
            checkpoint too: an earlier attempt ran them, before an older checkpoint was resumed from.

    Raises:
        OSError: The history could not be read.
    """
    rows: dict[Place, dict[str, Any]] = {}
    data = read_file(path, bytes_max=None)
    for begin, end in _superseded_parts(data, keep_bytes) if with_superseded else ():
        later = (row for row in _step_rows(_records(data[begin:end])) if row["step"] > after_step)
        _add_first(rows, later)
    begin = max(keep_bytes, len(HEADER))
    lost = list(_records(data[begin : begin + LOST_BYTES_MAX]))
    _add_first(rows, _step_rows(lost))
    return FirstRuns(rows, _first_reports(lost))


def _first_reports(records: Iterable[tuple[int, dict[str, Any]]]) -> dict[ReportPlace, dict[str, Any]]:
    found: dict[ReportPlace, dict[str, Any]] = {}
    counts: Counter[tuple[int, int]] = Counter()
    for _, record in records:
        if "resume" in record:
            counts.clear()
        elif "report" in record and all(type(record.get(name)) is int for name in ("step", "epoch")):
            at = (record["step"], record["epoch"])
            found.setdefault((*at, counts[at]), {key: _number(value) for key, value in record.items()})
            counts[at] += 1
    return found


def _superseded_parts(data: bytes, keep_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of the first `keep_bytes` that markers declare lost, up to `LOST_BYTES_MAX` in all."""
    left = LOST_BYTES_MAX
    at = data.find(MARKER, 0, keep_bytes)
    while at >= 0 and left > 0:
        line_end = data.find(b"\n", at)
        for _, record in _records(data[at : line_end if line_end >= 0 else len(data)]):
            begin = record["resume"].get("keep_bytes") if isinstance(record.get("resume"), dict) else None
            if type(begin) is int and 0 <= begin < at and (at == 0 or data[at - 1 : at] == b"\n"):
                part = max(begin, len(HEADER)), min(at, begin + left)
                left -= max(part[1] - part[0], 0)
                yield part
        at = data.find(MARKER, at + 1, keep_bytes)


def _step_rows(records: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for _, row in records:
        is_placed = all(type(row.get(name)) is int for name in ("step", "epoch", "batch"))
        if is_placed and "report" not in row:
            yield {key: _number(value) for key, value in row.items()}


def _add_first(found: dict[Place, dict[str, Any]], rows: Iterator[dict[str, Any]]) -> None:
    for row in rows:
        found.setdefault((row["step"], row["epoch"], row["batch"]), row)


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
