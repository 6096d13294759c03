"""Who is in a cgroup, and their end: of either version, and of kernels old and new."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.shim.notes import note

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from trainerd.contract.clock import Clock

_LOOK_S: Final = 0.005
"""Between two looks at who is left: the kernel takes about that long to end a process."""


def members(folder: Path) -> set[int]:
    """Return who is in a cgroup or in one below it.

    0 stands for those whom this namespace has no number for.
    """
    found: set[int] = set()
    for place, _, _ in os.walk(folder):
        with contextlib.suppress(OSError, ValueError):
            found |= {int(word) for word in Path(place, "cgroup.procs").read_text("ascii").split()}
    return found


def end_members(folder: Path, collect: Callable[[], object], clock: Clock, *, limit_s: float) -> set[int]:
    """Kill the processes in a cgroup and in those below it until there are none; return who was seen.

    Args:
        folder: Of the cgroup; it need not exist any more.
        collect: Reaps those who were children.
        clock: Measures the limit.
        limit_s: When to give up, in seconds.
    """
    deadline_s = clock.monotonic_s() + limit_s
    killed: set[int] = set()
    while (living := members(folder)) and clock.monotonic_s() < deadline_s:
        killed |= living
        if not write_to_kernel(folder / "cgroup.kill", "1"):  # Linux 5.14; all at once, newborns included
            _kill_each(folder, living)
        collect()
        time.sleep(_LOOK_S)
    return killed


def _kill_each(folder: Path, pids: Collection[int]) -> None:
    write_to_kernel(folder / "cgroup.freeze", "1")  # who is frozen does not fork, and dies all the same
    with contextlib.ExitStack() as stack:
        descriptors = {}
        for pid in pids:
            with contextlib.suppress(OSError):
                descriptors[pid] = os.pidfd_open(pid)
                stack.callback(os.close, descriptors[pid])
        # Opened first and looked at after: the process that has the number now and is in there is the one
        # that was opened.
        for pid in members(folder) & descriptors.keys():
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(descriptors[pid], signal.SIGKILL)


def remove_empty(folder: Path) -> bool:
    """Remove a cgroup and those below it; return whether it is gone."""
    for place, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(place)  # noqa: PTH106 - a name from os.walk
    return not folder.exists()


def write_to_kernel(file: Path, text: str) -> bool:
    """Write to a file of the kernel's, if it is there; return whether it was taken."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(descriptor, text.encode("ascii"))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            note(f"{file} does not take {text!r}: {error.strerror}")
        return False
    finally:
        os.close(descriptor)
    return True
