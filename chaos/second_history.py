"""Reads a metric history and the ledger of samples with nothing of trainerd's."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class History:
    """What counts of a metric history.

    Attributes:
        lines: Rows and reports, in order, after all resumes.
        resumes: The markers.
        lost: Rows that were written by steps that were lost.
    """

    lines: tuple[dict[str, Any], ...]
    resumes: tuple[dict[str, Any], ...]
    lost: tuple[dict[str, Any], ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if "report" not in line]


def read_history(path: Path) -> History:
    """Read a history: each resume marker says how many bytes in front of it still count."""
    kept: list[tuple[int, dict[str, Any]]] = []
    lost: list[tuple[int, int, dict[str, Any]]] = []
    resumes = []
    offset = 0
    for number, line in enumerate(path.read_bytes().split(b"\n")):
        try:
            found = json.loads(line) if line and number else None
        except ValueError:
            found = None  # torn by a crash
        if isinstance(found, dict) and "resume" in found:
            resumes.append(found["resume"])
            keep = found["resume"]["keep_bytes"]
            rows = [(at, None, one) for at, one in kept] + [(at, marker, one) for marker, at, one in lost]
            # The checkpoint was saved when the file had that size: rows that a later marker dropped were
            # still part of the history then.
            holds = [
                (at, one) for at, marker, one in rows if at < keep and (marker is None or marker >= keep)
            ]
            held = {at for at, _ in holds}
            lost = [each for each in lost if each[1] not in held]
            lost += [(offset, at, one) for at, one in kept if at not in held]
            kept = sorted(holds, key=lambda each: each[0])
        elif isinstance(found, dict):
            kept.append((offset, found))
        offset += len(line) + 1
    return History(
        tuple(one for _, one in kept), tuple(resumes), tuple(one for _, _, one in lost if "report" not in one)
    )


@dataclass(frozen=True)
class Stretch:
    """The steps of one attempt, in one go.

    Attributes:
        attempt: Number of the attempt.
        first_step: Its first.
        last_step: Its last.
        first_s: When the first was done, by CLOCK_MONOTONIC.
        last_s: When the last was.
    """

    attempt: int
    first_step: int
    last_step: int
    first_s: float
    last_s: float


@dataclass(frozen=True)
class Samples:
    """What a ledger says.

    Attributes:
        by_epoch: How often each sample was used in the steps that count.
        stretches: One an attempt that finished a step.
        lines: Those of rank 0, in the order in which they were written.
    """

    by_epoch: dict[int, Counter[int]]
    stretches: tuple[Stretch, ...]
    lines: tuple[dict[str, Any], ...] = ()

    def steps_at_stake(self, attempt: int, last_step: int, resumed_step: int) -> list[int]:
        """Return the steps lost with an attempt during which no save was in flight.

        There may be an interval of them.
        """
        newest = {line["step"]: line for line in self.lines if line["attempt"] <= attempt}
        lost = range(resumed_step + 1, last_step + 1)
        return [step for step in lost if not newest[step].get("is_in_flight", False)]


def read_samples(paths: list[Path]) -> Samples:
    """Read the ledgers of all ranks. Of a step that was run again the last line counts."""
    by_epoch: dict[int, Counter[int]] = {}
    stretches: list[Stretch] = []
    ours: list[dict[str, Any]] = []
    for rank, path in enumerate(paths):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in {line["step"]: line for line in lines}.values():
            by_epoch.setdefault(line["epoch"], Counter()).update(line["samples"])
        if rank == 0:
            stretches, ours = _stretches(lines), lines
    return Samples(by_epoch, tuple(stretches), tuple(ours))


def _stretches(lines: list[dict[str, Any]]) -> list[Stretch]:
    by_attempt: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        by_attempt.setdefault(line["attempt"], []).append(line)
    return [
        Stretch(attempt, ours[0]["step"], ours[-1]["step"], ours[0]["monotonic_s"], ours[-1]["monotonic_s"])
        for attempt, ours in sorted(by_attempt.items())
    ]
