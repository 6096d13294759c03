"""Reads what the goodput ledger is computed from: the journal, and the pages of the ranks. Blocks.

The journal is read by a connection of its own that cannot write, so that it works beside a supervisor and
without one. What cannot be read is left out: a ledger from fewer facts is still one that adds up. A file that
is there and cannot be read is listed, as it would have changed the ledger.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract import records
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.records import ExitRecord, OutcomeRecord, ShimRecord
from trainerd.errors import CorruptError
from trainerd.supervisor.goodput.attempt_split import AttemptTimes
from trainerd.supervisor.goodput.goodput_buckets import Goodput, StateChange, goodput_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.contract.paths import AttemptPaths, RunPaths, StatePaths

BUSY_LIMIT_S: Final = 1.0
"""How long the journal is waited for, in seconds."""

_ATTEMPTS: Final = (
    "SELECT attempt, started_wall_s, ended_wall_s, outcome FROM attempts WHERE job = ? ORDER BY attempt"
)
_EVENTS: Final = "SELECT wall_s, data FROM events WHERE job = ? ORDER BY sequence"


@dataclass(frozen=True)
class UnreadFile:
    """A file or folder of the run that is there, or may be, and cannot be read.

    Attributes:
        path: The file.
        why: The reason, as the operating system names it.
        attempt: Number of the attempt that it is about, None if it is about the whole run.
    """

    path: Path
    why: str
    attempt: int | None = None


@dataclass(frozen=True)
class RunFacts:
    """What the ledger of a run is computed from.

    Attributes:
        attempts: The attempts, in the order in which they began.
        changes: Changes of the job's state.
        unread: Files that cannot be read, and whose facts are missing here.
    """

    attempts: tuple[AttemptTimes, ...] = ()
    changes: tuple[StateChange, ...] = ()
    unread: tuple[UnreadFile, ...] = ()

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
    run, reading = paths.run(name), _Reading()
    noted, changes = reading.journal(paths.journal, name)
    found = reading.numbers(run)
    # Attempts that have no folder any more and came before all that have are of a run that was moved aside.
    oldest = min(found, default=0)
    left = [each for each in noted.values() if each.attempt < oldest]
    begin_s = max((each.ended_wall_s or each.started_wall_s for each in left), default=None)
    if begin_s is not None:
        changes = [each for each in changes if each.wall_s > begin_s]
    numbers = sorted(found | {number for number in noted if number >= oldest})
    attempts = (reading.attempt(run, number, noted.get(number)) for number in numbers)
    known = sorted((each for each in attempts if each is not None), key=lambda each: each.started_wall_s)
    return RunFacts(tuple(known), tuple(changes), tuple(reading.unread))


class _Reading:
    """Reads files of a run, and lists those that cannot be read.

    Attributes:
        unread: Those files.
    """

    def __init__(self) -> None:
        self.unread: list[UnreadFile] = []

    def journal(self, path: Path, name: str) -> tuple[dict[int, AttemptTimes], list[StateChange]]:
        try:
            return _from_journal(path, name)
        except sqlite3.Error:
            # SQLite does not say whether there is no file or it may not be read.
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            except OSError as error:
                self._note(path, error)
            return {}, []

    def numbers(self, run: RunPaths) -> set[int]:
        try:
            return set(run.attempt_numbers())
        except OSError as error:
            self._note(run.attempts, error)
            return set()

    def attempt(self, run: RunPaths, number: int, noted: AttemptTimes | None) -> AttemptTimes | None:
        """Return an attempt with what its folder adds; None if it is not known when it began."""
        paths = run.attempt(number)
        beat = self._beat(paths, number)
        if noted is not None and noted.ended_wall_s is not None:
            return replace(noted, beat=beat)
        exited = self._record(paths.exit, ExitRecord, number)
        shim = self._record(paths.shim, ShimRecord, number)
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
            said = self._record(paths.outcome(0), OutcomeRecord, number)
            return replace(times, ended_wall_s=exited.ended_wall_s, ending=_ending(said, exited))
        if shim is None and noted is None and beat is not None:
            # No supervisor ever launched it. Its last beat is the last that is known of it.
            said = self._record(paths.outcome(0), OutcomeRecord, number)
            ended_s = beat.opened_wall_s + sum(beat.spent_s)
            return replace(times, ended_wall_s=ended_s, ending=said.kind if said is not None else "lost")
        return times

    def _beat(self, paths: AttemptPaths, number: int) -> Heartbeat | None:
        try:
            return read_heartbeat(paths.heartbeat(0))
        except OSError as error:
            self._note(paths.heartbeat(0), error, number)
        except ValueError:
            pass
        return None

    def _record(self, path: Path, kind: type[Any], number: int) -> Any:
        try:
            return records.read(path, kind)
        except OSError as error:
            self._note(path, error, number)
        except CorruptError:
            pass
        return None

    def _note(self, path: Path, error: OSError, attempt: int | None = None) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            self.unread.append(UnreadFile(path, error.strerror or str(error), attempt))


def _from_journal(path: Path, name: str) -> tuple[dict[int, AttemptTimes], list[StateChange]]:
    """Read what the journal says of a job.

    Raises:
        sqlite3.Error: It is not there, or cannot be read.
    """
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_LIMIT_S)
    with contextlib.closing(database):
        database.text_factory = lambda data: data.decode(errors="replace")
        attempts = {
            row[0]: AttemptTimes(row[0], row[1], row[2], _kind(row[3]))
            for row in database.execute(_ATTEMPTS, (name,))
        }
        return attempts, list(_changes(database.execute(_EVENTS, (name,))))


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


def _ending(said: OutcomeRecord | None, exited: ExitRecord) -> str:
    """Return the class of an ending that no supervisor has judged yet, from what the attempt has left."""
    if said is not None and said.kind in {"finished", "drained"}:
        return str(said.kind)
    return "finished" if all(each.exit_code == 0 for each in exited.ranks) else "crashed"
