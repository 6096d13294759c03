"""Reads what the goodput ledger is computed from: the journal, and the pages of the ranks. Blocks.

The journal is read by a connection of its own that cannot write, so that it works beside a supervisor and
without one. What cannot be read is left out: a ledger from fewer facts is still one that adds up.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract import records
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.records import ExitRecord, OutcomeRecord, ShimRecord
from trainerd.errors import CorruptError
from trainerd.supervisor.goodput.attempt_split import AttemptTimes
from trainerd.supervisor.goodput.goodput_buckets import Goodput, StateChange, goodput_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.contract.paths import AttemptPaths, RunPaths, StatePaths

BUSY_LIMIT_S: Final = 1.0
"""How long the journal is waited for, in seconds."""

_ATTEMPTS: Final = (
    "SELECT attempt, started_wall_s, ended_wall_s, outcome FROM attempts WHERE job = ? ORDER BY attempt"
)
_EVENTS: Final = "SELECT wall_s, data FROM events WHERE job = ? ORDER BY sequence"


@dataclass(frozen=True)
class RunFacts:
    """What the ledger of a run is computed from."""

    attempts: tuple[AttemptTimes, ...] = ()
    changes: tuple[StateChange, ...] = ()

    @property
    def endings(self) -> dict[str, int]:
        """How many attempts ended, by class."""
        counts: dict[str, int] = {}
        for attempt in self.attempts:
            if attempt.ending is not None:
                counts[attempt.ending] = counts.get(attempt.ending, 0) + 1
        return counts

    def goodput(self, now_wall_s: float) -> Goodput:
        """Return where the time went until now, seconds since the epoch."""
        return goodput_of(self.attempts, self.changes, now_wall_s=now_wall_s)


def read_facts(paths: StatePaths, name: str) -> RunFacts:
    """Read what is known of the time of a job's run.

    Args:
        paths: The state folder.
        name: The job.

    Raises:
        UserError: `name` cannot name a job.
    """
    run = paths.run(name)
    noted, changes = _from_journal(paths.journal, name)
    found = _numbers(run)
    # Attempts that have no folder any more and came before all that have are of a run that was moved aside.
    oldest = min(found, default=0)
    left = [each for each in noted.values() if each.attempt < oldest]
    begin_s = max((each.ended_wall_s or each.started_wall_s for each in left), default=None)
    if begin_s is not None:
        changes = [each for each in changes if each.wall_s > begin_s]
    numbers = sorted(found | {number for number in noted if number >= oldest})
    attempts = (_completed(run, number, noted.get(number)) for number in numbers)
    known = [each for each in attempts if each is not None]
    return RunFacts(tuple(sorted(known, key=lambda each: each.started_wall_s)), tuple(changes))


def _from_journal(path: Path, name: str) -> tuple[dict[int, AttemptTimes], list[StateChange]]:
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_LIMIT_S)
    except sqlite3.Error:
        return {}, []
    with contextlib.closing(database):
        database.text_factory = lambda data: data.decode(errors="replace")
        try:
            attempts = {
                row[0]: AttemptTimes(row[0], row[1], row[2], _kind(row[3]))
                for row in database.execute(_ATTEMPTS, (name,))
            }
            return attempts, list(_changes(database.execute(_EVENTS, (name,))))
        except sqlite3.Error:
            return {}, []


def _changes(rows: Any) -> Iterator[StateChange]:
    for wall_s, text in rows:
        data = _parsed(text)
        if isinstance(data.get("state"), str) and isinstance(wall_s, int | float):
            yield StateChange(float(wall_s), data["state"], str(data.get("event", "")))


def _kind(text: str | None) -> str | None:
    kind = _parsed(text).get("kind") if text is not None else None
    return kind if isinstance(kind, str) else None


def _parsed(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _numbers(run: RunPaths) -> set[int]:
    try:
        return {int(path.name) for path in run.attempts.iterdir() if path.name.isdecimal()}
    except OSError:
        return set()


def _completed(run: RunPaths, number: int, noted: AttemptTimes | None) -> AttemptTimes | None:
    """Return an attempt with what its folder adds; None if it is not known when it began."""
    paths = run.attempt(number)
    beat = _beat(paths)
    if noted is not None and noted.ended_wall_s is not None:
        return replace(noted, beat=beat)
    exited, shim = _read(paths.exit, ExitRecord), _read(paths.shim, ShimRecord)
    started_s = noted.started_wall_s if noted is not None else None
    for record in (shim, exited):
        if started_s is None and record is not None:
            started_s = record.started_wall_s
    if started_s is None and beat is not None and beat.opened_wall_s > 0:
        started_s = beat.opened_wall_s
    if started_s is None:
        return None
    times = AttemptTimes(number, started_s, beat=beat)
    if exited is not None:
        return replace(times, ended_wall_s=exited.ended_wall_s, ending=_said(paths, exited))
    if shim is None and noted is None and beat is not None:
        # No supervisor ever launched it. Its last beat is the last that is known of it.
        said = _read(paths.outcome(0), OutcomeRecord)
        ended_s = beat.opened_wall_s + sum(beat.spent_s)
        return replace(times, ended_wall_s=ended_s, ending=said.kind if said is not None else "lost")
    return times


def _said(paths: AttemptPaths, exited: ExitRecord) -> str:
    """Return the class of an ending that no supervisor has judged yet, from what the attempt has left."""
    said = _read(paths.outcome(0), OutcomeRecord)
    if said is not None and said.kind in {"finished", "drained"}:
        return str(said.kind)
    return "finished" if all(each.exit_code == 0 for each in exited.ranks) else "crashed"


def _beat(paths: AttemptPaths) -> Heartbeat | None:
    try:
        return read_heartbeat(paths.heartbeat(0))
    except (OSError, ValueError):
        return None


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        return records.read(path, kind)
    except (OSError, CorruptError):
        return None
