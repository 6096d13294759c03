"""The cgroup of one attempt: every descendant of its ranks is in it, whatever it does to get away.

Invariants: its name holds the identity of the shim, so no other attempt has it. It is on record before it is
made, and removed before the exit is on record: one that was left behind is of a lost attempt. All of it is
optional: where none is to be had, or a step of it fails, an attempt runs as it would without one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from trainerd.contract.failpoints import declare
from trainerd.shim.cgroup_members import end_members, remove_empty, write_to_kernel
from trainerd.shim.cgroup_place import find_places
from trainerd.shim.memory import counter
from trainerd.shim.notes import note

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from trainerd.contract.clock import Clock
    from trainerd.contract.process import ProcessIdentity
    from trainerd.contract.records import LaunchRecord, ShimRecord

PREFIX: Final = "trainerd-"

CGROUP_MADE: Final = declare(
    "cgroup.made",
    "an empty cgroup, where one is to be had, and no rank; the attempt is lost, and it is removed",
)


def planned_folders(launch: LaunchRecord, shim: ProcessIdentity) -> tuple[str, ...]:
    """Return which cgroups an attempt is to have.

    There is one for its processes, and in version 1 one for their memory.
    """
    if not launch.uses_cgroup:
        return ()
    found = find_places()
    name = f"{PREFIX}{launch.job}-{launch.attempt}{_suffix(shim)}"
    folders = [found.tree] if found.tree is not None else []
    if launch.memory_bytes is not None and found.memory is not None:
        folders.append(found.memory)
    return tuple(str(folder / name) for folder in folders)


def _suffix(shim: ProcessIdentity) -> str:
    return f"-{shim.pid}-{shim.start_ticks}"


def folders_of(record: ShimRecord) -> tuple[Path, ...]:
    """Return the cgroups on record for a shim, as far as their names say so too: no others are ended."""
    folders = [Path(folder) for folder in record.cgroups]
    return tuple(
        folder
        for folder in folders
        if folder.name.startswith(PREFIX) and folder.name.endswith(_suffix(record.process))
    )


class AttemptCgroup:
    """Those cgroups of an attempt that could be made; perhaps none.

    Args:
        folders: That are there.

    Attributes:
        may_leak: Whether a rank may have been outside for a moment, so that it does not prove that no process
            is left.
        memory_limit_bytes: How much memory it allows; None if nothing sees to a limit.
    """

    def __init__(self, folders: Collection[Path]) -> None:
        self.folders = tuple(folders)
        self.may_leak = not self.folders
        self.memory_limit_bytes: int | None = None

    @classmethod
    def make(cls, planned: Collection[str], memory_bytes: int | None) -> Self:
        """Make what was planned, and limit its memory where that can be done.

        What fails is left out, and noted.
        """
        made = []
        for folder in map(Path, planned):
            try:
                folder.mkdir()
            except OSError as error:
                note(f"no cgroup {folder}: {error.strerror}")
            else:
                made.append(folder)
        CGROUP_MADE.hit()
        cgroup = cls(made)
        cgroup._limit_memory(memory_bytes)
        return cgroup

    def _limit_memory(self, memory_bytes: int | None) -> None:
        for folder in self.folders:
            # A job that lost one process for lack of memory is of no use: the kernel ends all of it.
            write_to_kernel(folder / "memory.oom.group", "1")
        if memory_bytes is not None and not self.set_memory_limit(memory_bytes):
            note("the memory that it may take is not limited: there is no cgroup to do it")

    def set_memory_limit(self, memory_bytes: int) -> bool:
        """Allow so much memory; return whether a cgroup sees to that."""
        for file in self._files("memory.max", "memory.limit_in_bytes"):
            if write_to_kernel(file, str(memory_bytes)):
                self.memory_limit_bytes = memory_bytes
                return True
        return False

    @contextlib.contextmanager
    def entrance(self) -> Iterator[int | None]:
        """Open the cgroup into which a process can be born, for as long as the context lasts.

        The context yields None if there is none.
        """
        descriptor = None
        if self.folders and (self.folders[0] / "cgroup.type").exists():  # version 2 alone takes newborns
            with contextlib.suppress(OSError):
                descriptor = os.open(self.folders[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def enter(self, *, is_born_inside: bool) -> None:
        """Move this process, which is to become a rank, into what it was not born in."""
        for folder in self.folders[1:] if is_born_inside else self.folders:
            if not write_to_kernel(folder / "cgroup.procs", "0"):
                note(f"a rank runs outside of {folder}")

    def memory_bytes_max(self) -> int | None:
        """Return the most memory that it ever held, in bytes; None if it was not counted."""
        for file in self._files("memory.peak", "memory.max_usage_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                return int(file.read_text("ascii"))
        return None

    def oom_kills(self) -> int | None:
        """Return how many of its processes the kernel has ended for lack of memory.

        None if they were not counted.
        """
        for file in self._files("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                return counter(file.read_text("ascii"), "oom_kill")
        return None

    def _files(self, *names: str) -> list[Path]:
        found = [folder / name for folder in self.folders for name in names]
        return [file for file in found if file.exists()]

    def end(self, collect: Callable[[], object], clock: Clock, *, limit_s: float) -> set[int]:
        """Kill the processes in it, wait until they are gone, and return who they were."""
        killed: set[int] = set()
        for folder in self.folders:
            killed |= end_members(folder, collect, clock, limit_s=limit_s)
        return killed

    def remove(self) -> None:
        """Remove it. One that holds a process stays, and the log says so."""
        for folder in self.folders:
            if not remove_empty(folder):
                note(f"the cgroup {folder} cannot be removed: a process is in it")
