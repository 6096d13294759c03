"""The tables of the journal, and how older ones are brought up to date."""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 1

STATEMENTS: Final = (
    "CREATE TABLE schema (version INTEGER NOT NULL)",
    # One row a job; `record` is the whole of it, the other columns are for people with a SQLite shell.
    """CREATE TABLE jobs (
        name TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        since_wall_s REAL NOT NULL,
        record TEXT NOT NULL
    )""",
    # One row a life of a job: from its submission until it is forgotten.
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        job TEXT NOT NULL,
        started_wall_s REAL NOT NULL,
        ended_wall_s REAL
    )""",
    "CREATE INDEX runs_by_job ON runs (job)",
    """CREATE TABLE attempts (
        job TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        started_wall_s REAL NOT NULL,
        ended_wall_s REAL,
        outcome TEXT,
        next_action TEXT,
        PRIMARY KEY (job, attempt)
    )""",
    """CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        wall_s REAL NOT NULL,
        job TEXT,
        kind TEXT NOT NULL,
        message TEXT NOT NULL,
        data TEXT NOT NULL
    )""",
    "CREATE INDEX events_by_job ON events (job, sequence)",
)

UPGRADES: Final[dict[int, tuple[str, ...]]] = {}
"""For each older version, what brings it to the next one."""
