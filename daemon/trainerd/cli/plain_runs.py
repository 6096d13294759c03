"""Attempts of a script that was started by hand, without a shim: told from what their sessions wrote."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final

from trainerd.contract import records
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.process import is_alive, is_elsewhere
from trainerd.contract.records import OutcomeRecord
from trainerd.contract.safe_text import safe_line
from trainerd.contract.session_record import read_sessions, session_files
from trainerd.errors import TrainerdError
from trainerd.supervisor.api.control import OutcomeView

if TYPE_CHECKING:
    from trainerd.contract.paths import AttemptPaths, RunPaths

ATTEMPTS_MAX: Final = 256
"""Of how many attempts, the newest ones, the endings are read."""

RANKS_MAX: Final = 64
"""Of how many ranks the records are read."""

_KINDS: Final = {
    "finished": "finished",
    "drained": "drained",
    "exception": "crashed",
    "no-space": "crashed",
    "mismatch": "rejected",
    "fenced": "rejected",
    "out-of-memory": "out-of-memory",
    "nonfinite-loss": "non-finite-loss",
}
"""What an outcome is called, by what its rank said."""

_WELL: Final = frozenset({"finished", "drained"})

_GONE: Final = "its process is gone and has said nothing of its end: it was killed, or left in another way"
_NEXT: Final = "the same command continues the run; no supervisor does"


def is_plain(paths: AttemptPaths) -> bool:
    """Return whether an attempt was started by hand: a session was opened, and no launch is on record."""
    if any(path.exists() for path in (paths.launch, paths.shim, paths.void, paths.exit)):
        return False
    return bool(session_files(paths)) or paths.outcome(0).exists()


def plain_standing(paths: AttemptPaths, attempt: int) -> tuple[bool | None, str]:
    """Return whether an attempt started by hand runs, None if that cannot be told, and a sentence on it."""
    try:
        ending = plain_ending(paths, attempt)
    except PermissionError as error:
        return None, f"attempt {attempt} may run: {error.filename} cannot be read: {error.strerror}"
    if ending is not None:
        return False, f"attempt {attempt} has ended ({ending.kind}: {ending.reason}); {ending.next_action}"
    sessions = read_sessions(paths)
    if any(is_elsewhere(each.process) for each in sessions):
        host = next(each.process.host for each in sessions if is_elsewhere(each.process))
        return False, f"attempt {attempt} was started on {host}, another machine, and may still run there"
    return True, f"attempt {attempt} runs, started by hand: no supervisor would restart it"


def plain_endings(run: RunPaths) -> tuple[OutcomeView, ...]:
    """Return how the attempts of a run that were started by hand ended, oldest first."""
    newest = run.newest_attempt()
    found = []
    for number in range(max(1, newest - ATTEMPTS_MAX + 1), newest + 1):
        with contextlib.suppress(OSError):
            paths = run.attempt(number)
            ending = plain_ending(paths, number) if is_plain(paths) else None
            found += [ending] if ending is not None else []
    return tuple(found)


def plain_ending(paths: AttemptPaths, attempt: int) -> OutcomeView | None:
    """Return how an attempt that was started by hand ended, None if it may still run.

    Raises:
        PermissionError: This user may not read what it has left.
    """
    said = _said(paths)
    if said:
        # One that failed counts: the others may have been drained because of it.
        rank, record, ended_s = min(said, key=lambda each: (each[1].kind in _WELL, each[0]))
        return _told(record, rank, attempt, ended_s)
    for path in session_files(paths):
        if not os.access(path, os.R_OK, effective_ids=True) and path.exists():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    sessions = read_sessions(paths)
    try:
        if any(is_elsewhere(each.process) or is_alive(each.process) for each in sessions):
            return None
    except OSError:
        return None
    beat_path, step, ended_s = paths.heartbeat(0), None, paths.root.stat().st_mtime
    with contextlib.suppress(OSError, ValueError):
        beat = read_heartbeat(beat_path)
        step, ended_s = beat.step if beat is not None else None, beat_path.stat().st_mtime
    return OutcomeView(attempt, "lost", _GONE, _pids(paths), step, None, _NEXT, ended_s)


def _said(paths: AttemptPaths) -> list[tuple[int, OutcomeRecord, float]]:
    """Return what ranks said of their end: the rank, its record, and when it wrote it."""
    found = []
    for rank in range(RANKS_MAX):
        path = paths.outcome(rank)
        try:
            record = records.read(path, OutcomeRecord)
            if record is not None:
                found.append((rank, record, path.stat().st_mtime))
        except PermissionError:
            raise
        except (TrainerdError, OSError):
            continue
    return found


def _told(record: OutcomeRecord, rank: int, attempt: int, ended_s: float) -> OutcomeView:
    kind = _KINDS[record.kind]
    if record.kind == "finished":
        reason = "its session reported the end"
    elif record.kind == "drained":
        made = "its checkpoint is made" if record.checkpoint is not None else "had nothing to save yet"
        reason = f"it was asked to stop, and {made}"
    else:
        name = (record.error_type or record.kind).rpartition(".")[2]
        reason = safe_line(f"{name}: {record.error_message}" if record.error_message else name)
    left = _NEXT if kind != "finished" else "none: the run is complete"
    evidence = (f"rank {rank} said so in its outcome record", *map(safe_line, record.detail))
    return OutcomeView(attempt, kind, reason, evidence, record.step, record.checkpoint, left, ended_s)


def _pids(paths: AttemptPaths) -> tuple[str, ...]:
    return tuple([f"process {each.process.pid} of rank {each.rank} is gone" for each in read_sessions(paths)])
