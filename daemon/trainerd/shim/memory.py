"""Whether the kernel ended a process for lack of memory.

From the counters of the cgroup, and from the kernel's log.

A process that the kernel kills so ends by SIGKILL like any other. The log names it; the counter of the cgroup
says only that it happened to a process in there. Each may be out of reach, and then says nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUPS: Final = Path("/sys/fs/cgroup")
KERNEL_LOG: Final = Path("/dev/kmsg")
RECORD_BYTES_MAX: Final = 8192
RECORDS_MAX: Final = 100_000
"""How much of the kernel's log is read at most; it is a ring of far fewer records."""

CLOCK_MARGIN_S: Final = 2.0
"""How far the clock of the kernel's log may be from the monotonic one, in seconds."""

_FIRST_PID_NAMESPACE: Final = "pid:[4026531836]"
_KILLED: Final = re.compile(r"Killed process (\d+)")


def oom_kills(*, membership: str | None = None, cgroups: Path = CGROUPS) -> int | None:
    """Return how many processes of this process's cgroup the kernel has ended for lack of memory so far.

    None is unknown: there is no such counter, or it cannot be read.
    """
    with contextlib.suppress(OSError, ValueError):
        text = membership if membership is not None else Path("/proc/self/cgroup").read_text("utf-8")
        for path in _counters(text, cgroups):
            if path.is_file():
                return counter(path.read_text("utf-8"), "oom_kill")
    return None


def _counters(membership: str, cgroups: Path) -> Iterator[Path]:
    """Yield where the counter may be.

    Inside a container the path may not exist, and the root is its own cgroup.
    """
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield cgroups / "memory" / path.lstrip("/") / "memory.oom_control"
            yield cgroups / "memory" / "memory.oom_control"
        elif not controllers:
            yield cgroups / path.lstrip("/") / "memory.events"
            yield cgroups / "memory.events"


def counter(text: str, name: str) -> int | None:
    """Return what a file of lines ``NAME NUMBER`` says about a name; None if nothing.

    Raises:
        ValueError: It is no number.
    """
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None


def is_oom_victim(pid: int, *, since_monotonic_s: float, log: Path = KERNEL_LOG) -> bool:
    """Return whether the kernel's log says that it killed this process for lack of memory.

    False also where the log cannot be read, or numbers processes otherwise than we do (in a container).
    """
    with contextlib.suppress(OSError):
        if os.readlink("/proc/self/ns/pid") != _FIRST_PID_NAMESPACE:  # noqa: PTH115 - a magic link, not a path
            return False
        return any(
            (found := _KILLED.search(message)) is not None and int(found[1]) == pid
            for seconds, message in _records(log)
            if seconds >= since_monotonic_s - CLOCK_MARGIN_S
        )
    return False


def _records(log: Path) -> Iterator[tuple[float, str]]:
    """Yield time and text of each record, oldest first. Each read returns one."""
    descriptor = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        for _ in range(RECORDS_MAX):
            try:
                record = os.read(descriptor, RECORD_BYTES_MAX).decode(errors="replace")
            except BrokenPipeError:
                continue  # it was overwritten meanwhile
            except BlockingIOError:
                return
            if not record:
                return
            head, _, message = record.partition(";")
            fields = head.split(",")
            if len(fields) > 2 and fields[2].isdigit():
                yield int(fields[2]) / 1e6, message
    finally:
        os.close(descriptor)
