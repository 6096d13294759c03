"""Who a process is, beyond its number: numbers are reused, within a boot and across boots.

An identity is the pid together with the moment the process started (clock ticks since boot, field 22 of
``/proc/PID/stat``) and the id of the boot. Only if all three agree is it still the same process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    start_ticks: int
    boot_id: str


@cache
def boot_id() -> str:
    """Return the id of this boot of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def stat_fields(stat: bytes) -> list[bytes]:
    """Split what ``/proc/PID/stat`` holds, from its third field, the state, on."""
    # The command name, in parentheses, may itself hold spaces and parentheses.
    return stat[stat.rindex(b")") + 2 :].split()


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of the process that has this number now, None if there is none.

    A zombie has an identity: it has ended, and nobody has collected it yet.

    Raises:
        OSError: The process could not be observed, which says nothing about whether it lives.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return ProcessIdentity(pid, int(stat_fields(stat)[19]), boot_id())


def is_alive(identity: ProcessIdentity) -> bool:
    """Return whether that very process still exists and runs (a zombie does not).

    Raises:
        OSError: It could not be observed. Failing to observe is not evidence of death.
    """
    if identity.boot_id != boot_id() or identify(identity.pid) != identity:
        return False
    try:
        stat = Path(f"/proc/{identity.pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat_fields(stat)[0] not in {b"Z", b"X"}


def is_stopped(identity: ProcessIdentity) -> bool:
    """Return whether that very process is stopped, as by SIGSTOP; unknown counts as no."""
    try:
        stat = Path(f"/proc/{identity.pid}/stat").read_bytes()
        return stat_fields(stat)[0] in {b"T", b"t"} and identify(identity.pid) == identity
    except OSError:
        return False


def open_pidfd(identity: ProcessIdentity) -> int | None:
    """Open a descriptor of that very process, None if it has ended and been collected.

    Opened first and identified after: between the two the number cannot pass to a stranger unnoticed.

    Raises:
        OSError: It could not be observed.
    """
    if identity.boot_id != boot_id():
        return None
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    if identify(identity.pid) != identity:
        os.close(descriptor)
        return None
    return descriptor
