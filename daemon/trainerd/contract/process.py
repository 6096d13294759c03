"""Who a process is, beyond its number: numbers are reused, within a boot and across boots.

An identity is the pid together with the moment the process started (clock ticks since boot, field 22 of
``/proc/PID/stat``) and the id of the boot. Only if all three agree is it still the same process.

Another boot of this machine has ended all its processes. Another machine has another boot as well, and says
nothing here about its processes: they are unknown, not dead. So an identity names the machine too.
"""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one with the same number.

    Attributes:
        pid: Its number.
        start_ticks: When it was started, in clock ticks since boot.
        boot_id: Of the boot in which it runs.
        host: Name of its machine; empty in records of earlier versions.
        machine: Digest of the machine id of that machine; empty if it has none, and likewise.
    """

    pid: int
    start_ticks: int
    boot_id: str
    # A boot is one of one machine, so these tell nothing more of two identities that are equal.
    host: str = field(default="", compare=False)
    machine: str = field(default="", compare=False)


@cache
def boot_id() -> str:
    """Return the id of this boot of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@cache
def host_name() -> str:
    """Return the name of this machine, or container."""
    return os.uname().nodename


@cache
def machine() -> str:
    """Return a digest of ``/etc/machine-id``, which itself is to be kept private; empty if there is none."""
    try:
        text = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    if text in {"", "uninitialized"}:
        return ""
    return hashlib.sha256(f"trainerd {text}".encode()).hexdigest()[:16]


def is_elsewhere(identity: ProcessIdentity) -> bool:
    """Return whether it is a process of another machine, of which nothing can be seen from here.

    A machine id alone does not tell: containers and nodes that start from one image may have the same. Nor
    does a name. One that differs is enough; a machine that was renamed and restarted counts as another.
    """
    if identity.boot_id == boot_id() or not (identity.host or identity.machine):
        return False
    return (identity.host, identity.machine) != (host_name(), machine())


def stat_fields(stat: bytes) -> list[bytes]:
    """Split what ``/proc/PID/stat`` holds, from its third field, the state, on."""
    # The command name, in parentheses, may itself hold spaces and parentheses.
    return stat[stat.rindex(b")") + 2 :].split()


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of the process that has this number now, None if there is none.

    A zombie has an identity: it has ended, and its parent has not collected it yet.

    Raises:
        OSError: The process could not be observed, which says nothing about whether it lives.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return ProcessIdentity(pid, int(stat_fields(stat)[19]), boot_id(), host_name(), machine())


def is_alive(identity: ProcessIdentity) -> bool:
    """Return whether that very process still exists and runs (a zombie does not).

    Raises:
        OSError: It could not be observed, or is on another machine. That is no evidence of death.
    """
    if is_elsewhere(identity):
        raise OSError(errno.EREMOTE, f"process {identity.pid} is one of another machine, {identity.host}")
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
