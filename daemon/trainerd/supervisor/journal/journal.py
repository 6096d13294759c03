"""What the supervisor remembers, in SQLite.

Invariants: a decision is one transaction, and it is durable (WAL with ``synchronous=FULL``) before anything
is done about it. What cannot be read is never replaced by something empty: the supervisor refuses to start
and says which file is in the way. Moving it aside is left to a person, and is safe: jobs come back from their
specs, attempts that still run are found in the run folders, and only history and counters are lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from trainerd.contract import codec
from trainerd.contract.durable import sync_directory
from trainerd.contract.failpoints import declare
from trainerd.contract.safe_text import safe_text
from trainerd.errors import CorruptError, LockedError, SpaceError, TryAgainError, UserError
from trainerd.supervisor.journal.job_codec import (
    decode_job,
    decode_outcome,
    encode_job,
    encode_outcome,
    is_of_another_version,
)
from trainerd.supervisor.journal.journal_schema import SCHEMA_VERSION, STATEMENTS, UPGRADES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from trainerd.supervisor.machine.outcome import Outcome
    from trainerd.supervisor.machine.states import Job

EVENTS_KEPT: Final = 50_000
"""Newest events that stay in the journal; older ones are dropped at a start. The log has them longer."""

_log = structlog.get_logger(__name__)

_CACHE_KIB: Final = 512
"""Memory for pages of the database, in KiB. With SQLite's own limit the supervisor grows by 2 MB in its
first thousand jobs."""

_BUSY_TIMEOUT_S: Final = 5.0

DECIDED = declare(
    "journal.decided", "the state before the decision; what it answered is seen again and answered"
)
COMMITTED = declare(
    "journal.committed",
    "a decision that has not been acted upon; recovery tells what is missing from the state",
)

_OLDEST_EVENTS: Final = (
    "SELECT sequence, wall_s, job, kind, message, data FROM events "
    "WHERE sequence > ? AND (? IS NULL OR job = ?) ORDER BY sequence LIMIT ?"
)
_NEWEST_EVENTS: Final = _OLDEST_EVENTS.replace("ORDER BY sequence", "ORDER BY sequence DESC")


@dataclass(frozen=True)
class EndingRow:
    """How an attempt ended and what was done about it."""

    attempt: int
    outcome: Outcome
    next_action: str


@dataclass(frozen=True)
class Entry:
    """One decision, to be recorded.

    Attributes:
        name: The job.
        job: As it is now, None if it is forgotten.
        kind: What happened, in dotted words, such as ``job.running``.
        message: Why: one sentence.
        data: More, for those who read events by program.
        attempt_started: Number of the attempt that is launched by this.
        ending: How an attempt ended and what is done about it.
    """

    name: str
    job: Job | None
    kind: str
    message: str
    data: dict[str, Any] = field(default_factory=dict)
    attempt_started: int | None = None
    ending: EndingRow | None = None


@dataclass(frozen=True)
class EventRow:
    """One line of history."""

    sequence: int
    wall_s: float
    job: str | None
    kind: str
    message: str
    data: dict[str, Any]


class JournalGoneError(TryAgainError):
    """The file of the journal was deleted or replaced: what is written would be lost with the process."""


class Journal:
    """The journal of one state folder. Only its supervisor writes it.

    Args:
        path: The database, or ``:memory:`` for a simulation.

    Raises:
        UserError: It was written by a newer trainerd, or cannot be opened.
        CorruptError: It is damaged, or is no journal.
        SpaceError: The disk is full or read-only.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        with self._translated():
            # Autocommit: transactions are begun by hand, so that each holds exactly one batch of decisions.
            self._database = sqlite3.connect(
                path, isolation_level=None, timeout=_BUSY_TIMEOUT_S, check_same_thread=False
            )
            # A row that is not UTF-8 is one that is damaged, not an error of every query.
            self._database.text_factory = lambda data: data.decode(errors="replace")
            try:
                self._open()
            except BaseException:
                self._database.close()
                raise
        self._files: dict[Path, tuple[int, int]] = {}
        if not isinstance(path, str):
            sync_directory(path.parent)
            self._files = {
                file: identity for file in _files(path) if (identity := _identity(file)) is not None
            }

    def _open(self) -> None:
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("PRAGMA foreign_keys=ON")
        self._database.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        self._check_integrity()
        with self._transaction():
            self._prepare_schema()
            self._database.execute(
                "DELETE FROM events WHERE sequence <= (SELECT max(sequence) FROM events) - ?", (EVENTS_KEPT,)
            )

    def _check_integrity(self) -> None:
        problems = [row[0] for row in self._database.execute("PRAGMA quick_check(3)")]
        if problems != ["ok"]:
            raise self._damaged("; ".join(problems))

    def _prepare_schema(self) -> None:
        version = self._schema_version()
        if version is None:
            for statement in STATEMENTS:
                self._database.execute(statement)
            self._database.execute("INSERT INTO schema (version) VALUES (?)", (SCHEMA_VERSION,))
            return
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{self._path}: the journal has schema {version}; this trainerd reads up to {SCHEMA_VERSION}",
                hint="run the newer trainerd that wrote it, or use another state folder",
            )
        for older in range(version, SCHEMA_VERSION):
            for statement in UPGRADES[older]:
                self._database.execute(statement)
        self._database.execute("UPDATE schema SET version = ?", (SCHEMA_VERSION,))

    def _schema_version(self) -> int | None:
        tables = {
            row[0] for row in self._database.execute("SELECT name FROM sqlite_master WHERE type='table'")
        }
        if not tables:
            return None
        if "schema" not in tables:
            raise self._damaged(
                f"it is a database of something else, with tables {', '.join(sorted(tables))}"
            )
        row = self._database.execute("SELECT version FROM schema").fetchone()
        if row is None:
            raise self._damaged("it does not say which schema it has")
        return int(row[0])

    def _damaged(self, why: str) -> CorruptError:
        return CorruptError(
            f"{self._path}: the journal is damaged: {why}",
            hint=f"move it aside (mv {self._path} {self._path}.damaged, and the files {self._path}-wal "
            "and -shm "
            "likewise) and start again: jobs, running attempts and checkpoints are found from the "
            "specs and the "
            "run folders; only history and restart counters are lost",
        )

    def commit(self, entries: Sequence[Entry], *, wall_s: float) -> None:
        """Record decisions, all of them or none. When this returns, a power cut keeps them.

        Raises:
            SpaceError: The disk is full or read-only; nothing was recorded.
            JournalGoneError: Its file was deleted or replaced; likewise.
        """
        DECIDED.hit()
        self._check_in_place()
        with self._translated(), self._transaction():
            for entry in entries:
                self._record(entry, wall_s)
        # A crash here leaves a decision that has not been acted upon; recovery sees that from the state.
        COMMITTED.hit()

    def _check_in_place(self) -> None:
        for file, identity in self._files.items():
            if _identity(file) != identity:
                raise JournalGoneError(
                    f"the journal {file} was deleted or replaced while the supervisor runs: "
                    "nothing is decided, and what runs goes on",
                    hint="put the file back, or move what is there aside and restart the supervisor: "
                    "jobs and running attempts are found from the specs and the run folders",
                )

    def _record(self, entry: Entry, wall_s: float) -> None:
        execute = self._database.execute
        if entry.job is None:
            execute("DELETE FROM jobs WHERE name = ?", (entry.name,))
            execute(
                "UPDATE runs SET ended_wall_s = ? WHERE job = ? AND ended_wall_s IS NULL",
                (wall_s, entry.name),
            )
        else:
            execute(
                "INSERT OR REPLACE INTO jobs (name, state, reason, since_wall_s, record) VALUES (?, ?, "
                "?, ?, ?)",
                (
                    entry.name,
                    entry.job.state.NAME,
                    safe_text(entry.job.reason),
                    entry.job.since_wall_s,
                    encode_job(entry.job),
                ),
            )
            execute(
                "INSERT INTO runs (job, started_wall_s) SELECT ?, ? WHERE NOT EXISTS "
                "(SELECT 1 FROM runs WHERE job = ? AND ended_wall_s IS NULL)",
                (entry.name, wall_s, entry.name),
            )
        if entry.attempt_started is not None:
            execute(
                "INSERT OR REPLACE INTO attempts (job, attempt, started_wall_s) VALUES (?, ?, ?)",
                (entry.name, entry.attempt_started, wall_s),
            )
        if entry.ending is not None:
            outcome = entry.ending.outcome
            execute(
                "INSERT INTO attempts (job, attempt, started_wall_s, ended_wall_s, outcome, next_action) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (job, attempt) DO UPDATE SET ended_wall_s = "
                "excluded.ended_wall_s, outcome = excluded.outcome, next_action = excluded.next_action",
                (
                    entry.name,
                    entry.ending.attempt,
                    outcome.ended_wall_s,
                    outcome.ended_wall_s,
                    encode_outcome(outcome),
                    safe_text(entry.ending.next_action),
                ),
            )
        execute(
            "INSERT INTO events (wall_s, job, kind, message, data) VALUES (?, ?, ?, ?, ?)",
            (wall_s, entry.name, entry.kind, safe_text(entry.message), json.dumps(entry.data)),
        )

    def jobs(self) -> dict[str, Job]:
        """Return the last decided state of every job, by name.

        A row that is damaged is moved to the history: its job comes back from its spec, and an attempt that
        runs is found in its run folder, as if the whole journal were lost.

        Raises:
            CorruptError: A row was written by another version of trainerd.
        """
        with self._translated():
            rows = self._database.execute("SELECT name, record FROM jobs ORDER BY name").fetchall()
        found = {}
        for name, record in rows:
            try:
                found[name] = decode_job(record, source=f"{self._path}, job {name}")
            except CorruptError as error:
                if is_of_another_version(record):
                    raise
                self._set_row_aside(name, record, error)
        return found

    def _set_row_aside(self, name: str, record: str, error: CorruptError) -> None:
        why = f"its row of the journal is damaged and was set aside: {error.message}"
        _log.error("journal.row-damaged", job=name, reason=why)
        data = json.dumps({"record": safe_text(record)})
        with self._translated(), self._transaction():
            self._database.execute("DELETE FROM jobs WHERE name = ?", (name,))
            self._database.execute(
                "INSERT INTO events (wall_s, job, kind, message, data) VALUES (?, ?, ?, ?, ?)",
                (time.time(), name, "job.row-damaged", safe_text(why), data),
            )

    def endings(self, job: str, *, attempt: int | None = None) -> tuple[EndingRow, ...]:
        """Return how the attempts of a job, or one of them, ended, oldest first."""
        with self._translated():
            rows = self._database.execute(
                "SELECT job, attempt, outcome, next_action FROM attempts WHERE job = ? "
                "AND (? IS NULL OR attempt = ?) AND outcome IS NOT NULL ORDER BY attempt",
                (job, attempt, attempt),
            ).fetchall()
        return tuple(ending for row in rows if (ending := self._ending(*row)) is not None)

    def last_endings(self) -> dict[str, EndingRow]:
        """Return how the newest ended attempt of every job ended, by name."""
        with self._translated():
            rows = self._database.execute(
                "SELECT job, max(attempt), outcome, next_action FROM attempts "
                "WHERE outcome IS NOT NULL AND job IN (SELECT name FROM jobs) GROUP BY job"
            ).fetchall()
        return {row[0]: ending for row in rows if (ending := self._ending(*row)) is not None}

    def _ending(self, job: str, attempt: int, outcome: str, next_action: str) -> EndingRow | None:
        """Return an ending, None if its row is damaged: history, on which nothing hangs."""
        source = f"{self._path}, attempt {attempt} of {job}"
        try:
            return EndingRow(attempt, decode_outcome(outcome, source=source), next_action)
        except CorruptError as error:
            _log.error("journal.row-damaged", job=job, attempt=attempt, reason=error.message)
            return None

    def events(
        self, *, job: str | None = None, after: int = 0, limit: int = 200, is_newest: bool = False
    ) -> tuple[EventRow, ...]:
        """Return events with a sequence number above `after`, oldest first, at most `limit`.

        Those are the oldest ones, or with `is_newest` the newest ones.
        """
        query = _NEWEST_EVENTS if is_newest else _OLDEST_EVENTS
        with self._translated():
            rows = self._database.execute(query, (after, job, job, limit)).fetchall()
        if is_newest:
            rows.reverse()
        return tuple(
            EventRow(sequence, moment, name, kind, message, _event_data(data))
            for sequence, moment, name, kind, message, data in rows
        )

    def last_sequence(self) -> int:
        """Return the sequence number of the newest event, 0 if there is none."""
        with self._translated():
            (last,) = self._database.execute("SELECT max(sequence) FROM events").fetchone()
        return last or 0

    def close(self) -> None:
        self._database.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled it back already.
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn SQLite's errors into ours, with the file and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith(("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR_WRITE")):
                raise SpaceError(
                    f"the journal {self._path} cannot be written: {error}",
                    hint="free some space, or make the folder writable; nothing that was there is lost",
                ) from error
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise LockedError(f"{self._path} is locked by another program: {error}") from error
            if name.startswith("SQLITE_CANTOPEN"):
                raise UserError(f"cannot open {self._path}: {error}", hint="check its permissions") from error
            if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                raise self._damaged(str(error)) from error
            raise


def _files(path: Path) -> tuple[Path, ...]:
    return path, path.with_name(f"{path.name}-wal")


def _identity(file: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, None if it is not there or cannot be looked at."""
    try:
        status = os.stat(file)  # noqa: PTH116 - before each commit, so it must be quick
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_encodable(entry: Entry) -> None:
    """Raise what recording a decision would raise for what it holds."""
    json.dumps(entry.data)
    if entry.job is not None:
        encode_job(entry.job)
    if entry.ending is not None:
        encode_outcome(entry.ending.outcome)


def _event_data(text: str) -> dict[str, Any]:
    try:
        data = codec.parse(text, source="an event")
    except CorruptError:
        return {}
    return data if isinstance(data, dict) else {}
