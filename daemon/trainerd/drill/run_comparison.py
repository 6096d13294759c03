"""The first difference between an undisturbed run and a disturbed one. Pure: reads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trainerd.contract.counted import counted
from trainerd.training.engine.row_comparison import OWN_NAMES, Patterns, compare_rows, is_same

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DifferenceKind = Literal["samples", "value", "rows", "report", "state", "end"]

Boundary = tuple[int, int, int, bool]
"""Step, epoch and batch of a checkpoint, and whether it is the final one."""


@dataclass(frozen=True)
class RunDifference:
    """One difference between two runs.

    Attributes:
        kind: ``samples``, ``value`` and ``rows`` are of the metric history, ``report`` of scores,
            ``state`` of a checkpoint, ``end`` of where the runs ended.
        step: At which step, None if at no particular step.
        where: Name of the value, or path in the state: ``model.fc.weight``.
        detail: What differs, in words.
    """

    kind: DifferenceKind
    step: int | None
    where: str
    detail: str

    def __str__(self) -> str:
        place = f"step {self.step}: " if self.step is not None else ""
        return f"{place}{self.where}: {self.detail}" if self.where else f"{place}{self.detail}"


@dataclass(frozen=True)
class RunTrace:
    """What a run left behind.

    Attributes:
        rows: Its metric history, a row a step.
        reports: Its scores.
        boundaries: Boundaries of its checkpoints, in order.
    """

    rows: tuple[Mapping[str, Any], ...]
    reports: tuple[Mapping[str, Any], ...]
    boundaries: tuple[Boundary, ...]


@dataclass(frozen=True)
class Compared:
    """What a comparison of two runs covered and found.

    Attributes:
        rows: Rows that were compared.
        values: Logged numbers that were compared.
        samples: Rows of which the digests of the samples were compared.
        states: Checkpoints whose whole state was compared.
        differences: First difference of each kind, the earliest first.
    """

    rows: int = 0
    values: int = 0
    samples: int = 0
    states: int = 0
    differences: tuple[RunDifference, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether something was compared, the state at the end among it, and all of it is equal."""
        return self.states > 0 and not self.differences


def compare_runs(
    reference: RunTrace,
    other: RunTrace,
    state_difference: Callable[[Boundary], tuple[str, str] | None],
    *,
    uncompared: Patterns = Patterns(),  # noqa: B008 - it is frozen
) -> Compared:
    """Compare two runs: histories row by row, scores, and the whole state at each boundary that both saved.

    Args:
        reference: The undisturbed run.
        other: The run to compare with it.
        state_difference: Returns path and detail of the first difference between the two checkpoints of a
            boundary.
        uncompared: Names to leave out.
    """
    found: list[RunDifference] = []
    values = samples = 0
    for then, now in zip(reference.rows, other.rows, strict=False):
        step = int(then["step"])
        if _place(then) != _place(now):
            detail = f"{_shown_place(now)} instead of {_shown_place(then)}"
            found.append(RunDifference("rows", step, "", f"the history has {detail}"))
            break
        measured = {name: value for name, value in now.items() if name not in OWN_NAMES}
        rows = compare_rows(
            then, now.get("digest"), measured, step=step, uncompared=uncompared, is_same_program=True
        )
        values += len([name for name in measured if name in then and not uncompared.match(name)])
        samples += rows.has_samples
        if rows.difference is not None:
            is_samples = rows.difference.kind == "different-samples"
            found.append(
                RunDifference("samples" if is_samples else "value", step, "", rows.difference.detail)
            )
            break
    if len(reference.rows) != len(other.rows) and not found:
        counts = f"{counted(len(other.rows), 'step')} instead of {len(reference.rows)}"
        found.append(RunDifference("rows", None, "", f"the history has {counts}"))
    found += _of_reports(reference.reports, other.reports, uncompared)
    states = 0
    for boundary in reference.boundaries:
        if boundary not in other.boundaries:
            continue
        states += 1
        if (difference := state_difference(boundary)) is not None:
            found.append(RunDifference("state", boundary[0], *difference))
            break
    if reference.boundaries[-1:] != other.boundaries[-1:]:
        found.append(RunDifference("end", None, "", _ends(reference, other)))
    return Compared(
        rows=min(len(reference.rows), len(other.rows)),
        values=values,
        samples=samples,
        states=states,
        differences=tuple(sorted(found, key=_order)),
    )


_RANKS = ("samples", "value", "rows", "state", "report", "end")


def _order(difference: RunDifference) -> tuple[float, int]:
    step = float("inf") if difference.step is None else difference.step
    return step, _RANKS.index(difference.kind)


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row.get("step"), row.get("epoch"), row.get("batch")


def _shown_place(row: Mapping[str, Any]) -> str:
    return f"step {row.get('step')}, epoch {row.get('epoch')}, batch {row.get('batch')}"


def _of_reports(
    then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], uncompared: Patterns
) -> list[RunDifference]:
    for one, other in zip(then, now, strict=False):
        step = one.get("step")
        for name in sorted(one.keys() | other.keys()):
            if uncompared.match(name):
                continue
            if name not in one or name not in other or not is_same(one[name], other[name]):
                detail = f"{one.get(name)!r} became {other.get(name)!r}"
                return [RunDifference("report", step, f"score {name}", detail)]
    if len(then) != len(now):
        extra = (then if len(then) > len(now) else now)[min(len(then), len(now))]
        detail = f"{counted(len(now), 'report')} instead of {len(then)}"
        return [RunDifference("report", extra.get("step"), "", detail)]
    return []


def _ends(reference: RunTrace, other: RunTrace) -> str:
    def shown(run: RunTrace) -> str:
        if not run.boundaries:
            return "without a checkpoint"
        step, epoch, batch, is_final = run.boundaries[-1]
        return f"at step {step}, epoch {epoch}, batch {batch}" + (", finished" if is_final else "")

    return f"the run ended {shown(other)} instead of {shown(reference)}"


def differing_names(reference: RunTrace, other: RunTrace) -> tuple[str, ...]:
    """Return the names of logged numbers and scores that differ somewhere between two runs."""
    names: dict[str, None] = {}
    for then, now in [
        *zip(reference.rows, other.rows, strict=False),
        *zip(reference.reports, other.reports, strict=False),
    ]:
        for name in then:
            if name not in OWN_NAMES and (name not in now or not is_same(then[name], now[name])):
                names[name] = None
    return tuple(names)
