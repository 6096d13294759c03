"""Tells the attempts in a rank's log apart, and says how each ended, from the records beside it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Final

from trainerd.cli.shown_zone import precise_moment
from trainerd.contract import records
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.records import ExitRecord
from trainerd.contract.signals import signal_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainerd.contract.paths import RunPaths
    from trainerd.contract.records import RankExit

_STARTED: Final = re.compile(rb"^--- attempt (\d+) started [^\n]*", re.MULTILINE)
_STARTED_AT: Final = re.compile(rb"\A(--- attempt \d+ started )(\d[-:.T\d]+Z)(?= ---\n)")


class AttemptLines:
    """What one rank printed, attempt by attempt, each with a last line that says how it ended.

    Args:
        run: Whose log it is.
        rank: Of the log.
        shows: Whether an attempt, by its number, is shown.
        says_endings: Whether to say how attempts ended.
        newest: Number of the newest attempt; what comes before the first line that names one belongs to it.
        stamp: Returns what stands before a line that was written then, in seconds since the epoch.
    """

    def __init__(
        self,
        run: RunPaths,
        rank: int,
        *,
        shows: Callable[[int], bool],
        newest: int,
        says_endings: bool = True,
        stamp: Callable[[float | None], bytes] = lambda _: b"",
    ) -> None:
        self._stamp = stamp
        self._says_endings = says_endings
        self._run = run
        self._rank = rank
        self._shows = shows
        self._newest = newest
        self._attempt: int | None = None
        self._is_at_line_start = True
        self._has_ended: set[int] = set()
        self.shows_last = 0
        """How many bytes at the end of what `take` returned last are of the log itself."""

    def take(self, data: bytes) -> bytes:
        """Return what is shown of a piece of the log."""
        return b"".join(self._pieces(data))

    def rest(self) -> bytes:
        """Return how the newest attempt ended, empty if it has not, or has been said to."""
        return self._ending(self._attempt if self._attempt is not None else self._newest)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        place = 0
        for found in _STARTED.finditer(data):
            if found.start() == 0 and not self._is_at_line_start:
                continue
            number = int(found[1])
            before = self._attempt if self._attempt is not None else number - 1
            yield self._shown(self._in_shown_zone(data[place : found.start()]), before)
            yield self._ending(before)
            place, self._attempt = found.start(), number
        newest = self._attempt if self._attempt is not None else self._newest
        yield self._shown(self._in_shown_zone(data[place:]), newest)

    def _in_shown_zone(self, data: bytes) -> bytes:
        """Return a piece of the log; a time of start that it begins with is in the zone that is shown."""
        if not self._says_endings:
            return data
        return _STARTED_AT.sub(_in_zone, data)

    def _shown(self, data: bytes, attempt: int) -> bytes:
        if not data or not self._shows(attempt):
            self.shows_last = 0
            return b""
        self.shows_last = len(data)
        self._is_at_line_start = data.endswith(b"\n")
        return data

    def _ending(self, attempt: int) -> bytes:
        if not self._says_endings or attempt in self._has_ended or not self._shows(attempt):
            return b""
        said = ending_of(self._run, attempt, self._rank)
        if said is None:
            return b""
        self._has_ended.add(attempt)
        ended_s = ended_wall_s(self._run, attempt)
        line = self._stamp(ended_s) + said.encode() + b"\n"
        return line if self._is_at_line_start else b"\n" + line


def ending_of(run: RunPaths, attempt: int, rank: int) -> str | None:
    """Return the line that says how a rank of an attempt ended, None if it has not, or that is not known."""
    record = _exit_record(run, attempt)
    ended = next((each for each in record.ranks if each.rank == rank), None) if record is not None else None
    if record is None or ended is None:
        return None
    step = _step(run, attempt, rank)
    where = f" at step {step}" if step else ""
    return f"--- attempt {attempt} ended {precise_moment(record.ended_wall_s)}: {_how(ended)}{where} ---"


def _in_zone(found: re.Match[bytes]) -> bytes:
    try:
        wall_s = datetime.fromisoformat(found[2].decode()).timestamp()
    except ValueError:
        return found[0]
    return found[1] + precise_moment(wall_s).encode()


def ended_wall_s(run: RunPaths, attempt: int) -> float | None:
    """Return when an attempt ended, None if it has not, or that is not known."""
    record = _exit_record(run, attempt)
    return record.ended_wall_s if record is not None else None


def _exit_record(run: RunPaths, attempt: int) -> ExitRecord | None:
    try:
        return records.read(run.attempt(attempt).exit, ExitRecord) if attempt > 0 else None
    except Exception:  # noqa: BLE001 - whatever it holds: the log is shown without it
        return None


def _step(run: RunPaths, attempt: int, rank: int) -> int | None:
    try:
        beat = read_heartbeat(run.attempt(attempt).heartbeat(rank))
    except (OSError, ValueError):
        return None
    return beat.step if beat is not None else None


def _how(ended: RankExit) -> str:
    if ended.spawn_error is not None:
        return "not started"
    if ended.signal is not None:
        by = {
            "grace": ", past its grace period",
            "peer": ", as another rank had ended",
            "asked": ", as asked",
        }
        return signal_name(ended.signal) + (by[ended.killed_by_shim] if ended.killed_by_shim else "")
    return f"exit code {ended.exit_code}"
