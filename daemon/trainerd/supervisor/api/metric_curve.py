"""Curves of what a run has measured, for displays: few points, whatever the length of the history. Blocks.

A history may be of any size. It is read once, a part at a time; of a large one only every so many lines are
decoded, and a very large one from its end. Which rows were lost and run again is told by the markers, all of
which are looked at.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.metric_history import HEADER, MARKER, is_within, lost_parts
from trainerd.contract.regular_file import open_regular
from trainerd.contract.safe_text import safe_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POINTS_MAX: Final = 1000
"""Most points of a curve."""

NAMES_MAX: Final = 40
"""Of how many metrics there are curves."""

DECODED_BYTES_MAX: Final = 8 << 20
"""About how much of a history is decoded, in bytes."""

READ_BYTES_MAX: Final = 256 << 20
"""How much of a history is read at most, in bytes, from its end."""

TAIL_BYTES: Final = 1 << 20
"""How much of it is read for a small picture, in bytes."""

_PART_BYTES: Final = 1 << 20
_LINE_BYTES_MAX: Final = 1 << 18
_PLACES: Final = frozenset({"step", "epoch", "batch", "digest", "report", "format", "resume"})

Point = tuple[int, float]


@dataclass(frozen=True)
class RestartMark:
    """Where a run went on: the attempt that did, and the step of its checkpoint."""

    attempt: int
    step: int


@dataclass(frozen=True)
class Curves:
    """What a run has measured, by name.

    Attributes:
        kept: Points that count, by step.
        lost: Points of steps that were lost and run again.
        restarts: Where the run went on.
        is_partial: Whether lines were left out because the history is large.
    """

    kept: dict[str, list[Point]] = field(default_factory=dict)
    lost: dict[str, list[Point]] = field(default_factory=dict)
    restarts: tuple[RestartMark, ...] = ()
    is_partial: bool = False


def read_curves(path: Path, *, read_bytes_max: int = READ_BYTES_MAX, points_max: int = POINTS_MAX) -> Curves:
    """Read the curves of a history; those of one that cannot be read are empty.

    Args:
        path: The history.
        read_bytes_max: How much of it to read, from its end.
        points_max: Most points of a curve.
    """
    try:
        descriptor = open_regular(path)
    except OSError:
        return Curves()
    try:
        size = os.fstat(descriptor).st_size
        begin = max(size - read_bytes_max, 0)
        stride = max(math.ceil((size - begin) / DECODED_BYTES_MAX), 1)
        rows, marks = _sampled(_lines(descriptor, begin, size), stride)
    except OSError:
        return Curves()
    finally:
        os.close(descriptor)
    curves = Curves(restarts=tuple([mark for _, mark, _ in marks]), is_partial=begin > 0 or stride > 1)
    parts = lost_parts([(at, keep_bytes) for at, _, keep_bytes in marks])
    for offset, row in rows:
        _add(curves.lost if is_within(parts, offset) else curves.kept, row)
    for points in (curves.kept, curves.lost):
        for name in points:
            points[name] = thinned(sorted(points[name]), points_max)
    return curves


def _lines(descriptor: int, begin: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield lines with the offsets at which they begin; a first one that is cut is left out."""
    at, rest = begin, b""
    is_cut = begin > 0
    while at < size:
        data = os.pread(descriptor, min(_PART_BYTES, size - at), at)
        if not data:
            return
        offset = at - len(rest)
        at += len(data)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not is_cut:
                yield offset, line
            is_cut = False
            offset += len(line) + 1
        if len(rest) > _LINE_BYTES_MAX:  # not a line of ours
            rest, is_cut = b"", True


def _sampled(
    lines: Iterator[tuple[int, bytes]], stride: int
) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, RestartMark, int]]]:
    """Return every so many rows with their offsets, and all markers with what they keep."""
    rows: list[tuple[int, dict[str, Any]]] = []
    marks: list[tuple[int, RestartMark, int]] = []
    for number, (offset, line) in enumerate(lines):
        is_marker = line.startswith(MARKER)
        if not is_marker and number % stride:
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, dict):
            continue
        if is_marker:
            mark = _mark(record.get("resume"))
            if mark is not None:
                marks.append((offset, *mark))
        elif type(record.get("step")) is int and "report" not in record:
            rows.append((offset, record))
    return rows, marks


def _mark(plain: Any) -> tuple[RestartMark, int] | None:
    """Return what a marker says and how much of the history it keeps, None if it is none."""
    if not isinstance(plain, dict):
        return None
    attempt, step, keep_bytes = (plain.get(key) for key in ("attempt", "step", "keep_bytes"))
    if not (type(attempt) is int and type(step) is int and type(keep_bytes) is int):
        return None
    return RestartMark(attempt, step), max(keep_bytes, len(HEADER))


def _add(points: dict[str, list[Point]], row: dict[str, Any]) -> None:
    step = row["step"]
    for name, value in row.items():
        if name in _PLACES or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        shown = safe_line(name, characters_max=100)
        if (shown in points or len(points) < NAMES_MAX) and _is_plottable(step, value):
            points.setdefault(shown, []).append((step, float(value)))


def _is_plottable(step: int, value: float) -> bool:
    try:
        return abs(step) < 2**53 and math.isfinite(float(value))
    except OverflowError:
        return False


def thinned(points: list[Point], points_max: int) -> list[Point]:
    """Return at most so many points: of each stretch the lowest and the highest, so that spikes stay."""
    if len(points) <= points_max:
        return points
    bins = max(points_max // 2, 1)
    found = []
    for number in range(bins):
        part = points[len(points) * number // bins : len(points) * (number + 1) // bins]
        lowest, highest = (chosen(part, key=lambda point: point[1]) for chosen in (min, max))
        found += sorted({lowest, highest})
    return found
