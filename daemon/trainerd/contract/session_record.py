"""Who trains: each process that opens a session says so in a file of the attempt's folder.

The command of a rank is often a shell, a launcher or a pipe, and the process that trains is somewhere below
it. The shim signals the processes that are registered here. A number alone would not do: it may have passed
to another process, so the file says when the process was started as well.

The file need not survive a power cut, which no process survives either: it is renamed into place, not synced.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract import codec
from trainerd.contract.ancestry import line_of_descent, short_command
from trainerd.contract.durable import TEMPORARY_INFIX, read_file
from trainerd.contract.process import ProcessIdentity, identify
from trainerd.contract.safe_text import safe_value
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from trainerd.contract.paths import AttemptPaths

FORMAT: Final = "trainerd.session/1"

SESSIONS_MAX: Final = 4096
"""Of how many sessions of one attempt the records are read."""

SESSION_BYTES_MAX: Final = 1 << 16

_PIDS: Final = range(2, 1 << 22)


@dataclass(frozen=True)
class SessionRecord:
    """A process that has opened a session.

    Attributes:
        process: The process.
        rank: Its rank.
        chain: The processes that lead from the rank's command to it, outermost first, in words; it is the
            last one itself.
        is_open: Whether its session is open: then it hears a request on the page as well.
        pid_namespace: Inode of its pid namespace, in which a container gives it a number of its own; None if
            not known.
    """

    process: ProcessIdentity
    rank: int
    chain: tuple[str, ...] = ()
    is_open: bool = True
    pid_namespace: int | None = None


def register_session(paths: AttemptPaths, *, rank: int, shim_pid: int | None) -> SessionRecord:
    """Say that this process has opened a session.

    Args:
        paths: Folder of the attempt.
        rank: This rank.
        shim_pid: The process above the rank's command, None without a shim.

    Raises:
        OSError: It could not be written.
    """
    pid = _own_pid()
    process = identify(pid)
    assert process is not None, "/proc shows a process to itself"
    line = (line_of_descent(pid, shim_pid) if shim_pid is not None else ()) or (pid,)
    chain = tuple([f"{short_command(each)} (pid {each})" for each in line])
    record = SessionRecord(process, rank, chain, pid_namespace=pid_namespace("self"))
    _write(paths, record)
    return record


def close_session(paths: AttemptPaths, record: SessionRecord) -> None:
    """Say that this process has closed its session, if it can be said."""
    if record.process.pid == _own_pid():  # not a forked child
        with contextlib.suppress(OSError):
            _write(paths, replace(record, is_open=False))


def pid_namespace(pid: int | str) -> int | None:
    """Return the inode of a process's pid namespace, None if it cannot be seen."""
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:
        return None


def _own_pid() -> int:
    """Return the number by which /proc knows this process: in another pid namespace it has another number."""
    try:
        return int(Path("/proc/self").readlink().name)
    except (OSError, ValueError):
        return os.getpid()


def _write(paths: AttemptPaths, record: SessionRecord) -> None:
    path = paths.session(record.process.pid)
    other = read_session(path)
    if other is not None and other.pid_namespace != record.pid_namespace:  # the same number in two containers
        path = path.with_name(f"{path.stem}-{record.pid_namespace}.json")
    temporary = path.with_name(f".{path.name}{TEMPORARY_INFIX}{record.process.pid}")
    temporary.write_bytes(codec.to_json(safe_value(record), FORMAT))
    temporary.replace(path)


def shim_pid_of(mark: str) -> int | None:
    """Return the pid of the shim that an attempt's mark names, None for another kind of mark.

    Args:
        mark: Value of TRAINERD_ATTEMPT_ID: ``FOLDER@BOOT-PID-TICKS``.
    """
    _, separator, end = mark.rpartition("@")
    parts = end.split("-")
    return int(parts[1]) if separator and len(parts) == 3 and parts[1].isdecimal() else None


def read_session(path: Path) -> SessionRecord | None:
    """Read what a process said, None if it cannot be read: a job can write anything there."""
    try:
        data = read_file(path, bytes_max=SESSION_BYTES_MAX)
        record = safe_value(codec.from_json(data, SessionRecord, FORMAT, source=path))
    except (OSError, CorruptError, ValueError):
        return None
    # The first process of a container has the number 1; elsewhere that one is no program's.
    pids = _PIDS if record.pid_namespace is None else range(1, _PIDS.stop)
    return record if record.process.pid in pids and record.rank >= 0 else None


def session_files(paths: AttemptPaths) -> list[Path]:
    """Return the files of the processes that said so, at most `SESSIONS_MAX`."""
    try:
        return sorted(paths.root.glob("session-*.json"))[:SESSIONS_MAX]
    except OSError:
        return []


def read_sessions(paths: AttemptPaths) -> tuple[SessionRecord, ...]:
    """Return who has opened a session in an attempt, in the order in which they were started."""
    found = [record for path in session_files(paths) if (record := read_session(path)) is not None]
    return tuple(sorted(found, key=lambda record: (record.process.start_ticks, record.process.pid)))
