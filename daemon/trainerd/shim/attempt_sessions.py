"""Finds the processes that train below the commands of an attempt's ranks.

Invariant: a process is named here only if it is the very one that registered, by its number and its start
time, and belongs to this attempt: it descends from the shim or carries the attempt's mark. A number that has
passed to another process is never signalled.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from trainerd.contract.ancestry import line_of_descent
from trainerd.contract.environment import ATTEMPT_ID
from trainerd.contract.process import identify, is_alive
from trainerd.contract.session_record import pid_namespace, read_session, session_files
from trainerd.shim.process_table import carries, in_namespace, survives

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trainerd.contract.paths import AttemptPaths
    from trainerd.contract.process import ProcessIdentity
    from trainerd.contract.session_record import SessionRecord


class RegisteredSessions:
    """The sessions that registered with an attempt.

    Args:
        paths: Of the attempt.
        mark: Of the attempt's processes.
        nproc: How many ranks the shim has started.
    """

    def __init__(self, paths: AttemptPaths, mark: str, nproc: int) -> None:
        self._paths = paths
        self._entry = f"{ATTEMPT_ID}={mark}".encode(errors="surrogateescape")
        self._nproc = nproc
        self._open: set[ProcessIdentity] = set()
        self._own_namespace = pid_namespace("self")
        self._translated: dict[tuple[int, ProcessIdentity], ProcessIdentity | None] = {}
        self._read: dict[tuple[Path, int, int], SessionRecord | None] = {}

    def living(self, ranks_by_pid: Mapping[int, int]) -> dict[int, list[ProcessIdentity]]:
        """Return the registered processes that live, by the rank to whose command they belong.

        Args:
            ranks_by_pid: The ranks' commands that have not been reaped.
        """
        found: dict[int, list[ProcessIdentity]] = {}
        records = self._records()
        self._open = {record.process for record in records if record.is_open}
        for record in records:
            rank = self._owner(record, ranks_by_pid)
            if rank is not None:
                found.setdefault(rank, []).append(record.process)
        return found

    def hears(self, identity: ProcessIdentity, signum: int) -> bool:
        """Return whether a signal is to be sent to a process that `living` has returned.

        Not if it would end a session that is open: one that was opened by a thread has no handlers, and a
        library may have taken them away. It hears the request on the page.
        """
        return identity not in self._open or survives(identity.pid, signum)

    def _records(self) -> list[SessionRecord]:
        """Return what was registered. What has been read is not read again, while its file is the same."""
        records = []
        for path in session_files(self._paths):
            try:
                status = path.stat()
            except OSError:
                continue
            key = (path, status.st_ino, status.st_mtime_ns)
            if key not in self._read:
                self._read[key] = read_session(path)
            record = self._read[key]
            if record is not None:
                records.append(self._as_numbered_here(record))
        return records

    def _as_numbered_here(self, record: SessionRecord) -> SessionRecord:
        """Return the record of a process in a container with the number that this process knows it by."""
        namespace = record.pid_namespace
        if namespace is None or namespace == self._own_namespace:
            return record
        key = (namespace, record.process)
        if key not in self._translated:
            try:
                here = identify(record.process.pid)  # where /proc is that of outside, so is the number
            except OSError:
                return record
            if here != record.process:
                here = in_namespace(record.process.pid, namespace, record.process.start_ticks)
            self._translated[key] = here
        found = self._translated[key]
        return record if found is None else replace(record, process=found)

    def _owner(self, record: SessionRecord, ranks_by_pid: Mapping[int, int]) -> int | None:
        """Return the rank to which a process belongs, None if it has ended or is not of this attempt."""
        try:
            if not is_alive(record.process):
                return None
        except OSError:
            return None
        line = line_of_descent(record.process.pid, os.getpid())
        for pid in line:
            if pid in ranks_by_pid:
                return ranks_by_pid[pid]
        # The command that started it is gone, or it was started through a server such as tmux.
        if line or carries(record.process.pid, self._entry):
            return record.rank if record.rank < self._nproc else 0
        return None
