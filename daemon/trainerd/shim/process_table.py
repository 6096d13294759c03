"""Reads /proc: who runs, whose child it is, in which session, and what mark it carries."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract.process import ProcessIdentity, boot_id, stat_fields
from trainerd.contract.session_record import pid_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

_READ_BYTES: Final = 1 << 16
_SIGNAL_MASKS: Final = (b"SigBlk:", b"SigIgn:", b"SigCgt:")


@dataclass(frozen=True)
class ProcessRow:
    """One process at one moment."""

    identity: ProcessIdentity
    parent_pid: int
    session_id: int


def processes_since(start_ticks: int) -> Iterator[ProcessRow]:
    """Yield every process that runs and began at `start_ticks` or later, in clock ticks since boot.

    One that ends meanwhile, or that may not be looked at, is left out.
    """
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are what is wanted, thousands of times
        if name.isdigit():
            row = _read_row(int(name))
            if row is not None and row.identity.start_ticks >= start_ticks:
                yield row


def _read_row(pid: int) -> ProcessRow | None:
    stat = _read(f"/proc/{pid}/stat")
    if stat is None:
        return None
    fields = stat_fields(stat)
    state, threads = fields[0], int(fields[17])
    # A process whose first thread has left shows as a zombie too, and lives as long as its other threads.
    if state == b"X" or (state == b"Z" and threads <= 1):
        return None
    return ProcessRow(ProcessIdentity(pid, int(fields[19]), boot_id()), int(fields[1]), int(fields[3]))


def in_namespace(pid: int, namespace: int, start_ticks: int) -> ProcessIdentity | None:
    """Return the process that has a number in another pid namespace, None if it cannot be seen.

    Args:
        pid: Its number there.
        namespace: Inode of that namespace.
        start_ticks: When it was started, in clock ticks since boot, which is the same everywhere.
    """
    for row in processes_since(start_ticks):
        if row.identity.start_ticks != start_ticks:
            continue
        found = row.identity.pid
        if _innermost_pid(found) == pid and pid_namespace(found) == namespace:
            return row.identity
    return None


def _innermost_pid(pid: int) -> int | None:
    status = _read(f"/proc/{pid}/status") or b""
    numbers = [line.split() for line in status.splitlines() if line.startswith(b"NSpid:")]
    return int(numbers[0][-1]) if numbers else None


def carries(pid: int, entry: bytes) -> bool:
    """Return whether the environment with which a process was started holds ``NAME=VALUE`` `entry`."""
    environ = _read(f"/proc/{pid}/environ")
    return environ is not None and entry in environ.split(b"\0")


def has_title(pid: int, title: str) -> bool:
    """Return whether the command line of a process begins with a word."""
    return (_read(f"/proc/{pid}/cmdline") or b"").startswith(f"{title} ".encode())


def maps_library(pid: int, part: bytes) -> bool:
    """Return whether a process has a file in its memory whose path holds `part`."""
    return part in (_read(f"/proc/{pid}/maps") or b"")


def survives(pid: int, signum: int) -> bool:
    """Return whether a process has a handler for a signal, ignores it or holds it; unknown counts as yes."""
    status = _read(f"/proc/{pid}/status") or b""
    masks = [line.split()[1] for line in status.splitlines() if line.startswith(_SIGNAL_MASKS)]
    return not masks or any(int(mask, 16) >> (signum - 1) & 1 for mask in masks)


def marks(name: str, prefix: str) -> dict[int, str]:
    """Return the values of an environment variable that begin with `prefix`, by pid, of all who carry one."""
    entry, found = f"{name}={prefix}".encode(errors="surrogateescape"), {}
    for row in processes_since(0):
        for one in (_read(f"/proc/{row.identity.pid}/environ") or b"").split(b"\0"):
            if one.startswith(entry):
                found[row.identity.pid] = os.fsdecode(one.partition(b"=")[2])
    return found


def with_command_line(end: bytes) -> list[ProcessIdentity]:
    """Return the processes whose command line, its zeros read as spaces, ends with `end`, less an option."""
    found = []
    for row in processes_since(0):
        line = (_read(f"/proc/{row.identity.pid}/cmdline") or b"").rstrip(b"\0 ").replace(b"\0", b" ")
        if line.endswith(end) or end + b" --ready-fd" in line:
            found.append(row.identity)
    return found


def _read(path: str) -> bytes | None:
    """Return what a file of /proc says, None if its process has ended or belongs to another user."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(descriptor, _READ_BYTES):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def child_pids() -> list[int]:
    """Return the pids of this process's children, those who have ended and were not collected included.

    Quick where the kernel lists them, since a child that forks and leaves has to be caught in between.
    Without that list (CONFIG_PROC_CHILDREN) all of /proc is read.
    """
    own_pid = os.getpid()
    try:
        return [int(word) for word in Path(f"/proc/{own_pid}/task/{own_pid}/children").read_bytes().split()]
    except FileNotFoundError:
        return [row.identity.pid for row in processes_since(0) if row.parent_pid == own_pid]
