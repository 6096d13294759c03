"""How much memory a process may still take: what the machine, its cgroups and a tmpfs have left."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MARGIN_BYTES", "Room", "memory_room", "why_no_room"]

MARGIN_BYTES: Final = 256 << 20
"""What copies in memory leave free, in bytes."""

CGROUPS: Final = Path("/sys/fs/cgroup")
MEMORY: Final = Path("/proc/meminfo")
MEMBERSHIP: Final = Path("/proc/self/cgroup")


class Room(NamedTuple):
    """Memory that may still be taken.

    Attributes:
        free_bytes: So many bytes.
        where: Of what, in words.
    """

    free_bytes: int
    where: str


def why_no_room(rooms: list[Room], *, size_bytes: int, held_bytes: int) -> str | None:
    """Return why copies of one size are not to be kept in memory, None if there is room for two of them.

    Args:
        rooms: What is left.
        size_bytes: Size of one copy.
        held_bytes: How much the copies that are there take already.
    """
    needed_bytes = max(2 * size_bytes - held_bytes, 0) + MARGIN_BYTES
    least = min(rooms)
    if least.free_bytes >= needed_bytes:
        return None
    return (
        f"two copies of {size_bytes / 2**20:,.0f} MiB and {MARGIN_BYTES >> 20} MiB to spare are needed, "
        f"{least.free_bytes / 2**20:,.0f} MiB are free {least.where}"
    )


def memory_room(
    place: Path, *, memory: Path = MEMORY, membership: Path = MEMBERSHIP, cgroups: Path = CGROUPS
) -> list[Room]:
    """Return what is left in memory. What cannot be read is left out; the tmpfs always can.

    Args:
        place: Folder on the tmpfs.
        memory: What the kernel says of the machine's memory.
        membership: What it says of this process's cgroups.
        cgroups: Where the cgroups are mounted, of version 2, of version 1 or of both.

    Raises:
        OSError: The tmpfs cannot be looked at.
    """
    status = os.statvfs(place)
    rooms = [Room(status.f_bavail * status.f_frsize, f"on the tmpfs of {place.parent.parent}")]
    with contextlib.suppress(OSError, ValueError):
        rooms.append(Room(_field(memory, "MemAvailable:") * 1024, "in the machine's memory"))
    with contextlib.suppress(OSError, ValueError):
        rooms += _cgroup_rooms(membership.read_text("utf-8"), cgroups)
    return rooms


def _cgroup_rooms(membership: str, cgroups: Path) -> Iterator[Room]:
    """Yield what each cgroup with a limit has left, from the innermost to the outermost.

    Pages of a tmpfs count for the cgroup of the process that wrote them, and stay counted when it is gone.
    """
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        for mount, names in _mounts(cgroups, controllers.split(",")):
            folder = mount / path.lstrip("/")
            for each in (folder, *folder.parents):
                with contextlib.suppress(OSError, ValueError):
                    limit_bytes = int((each / names.limit).read_text("ascii"))  # "max" is no number
                    used_bytes = int((each / names.used).read_text("ascii"))
                    used_bytes -= _field(each / "memory.stat", names.cache)  # the kernel takes it back first
                    yield Room(limit_bytes - used_bytes, f"below the limit of the cgroup {each.name or '/'}")
                if each == mount:
                    break


class _Names(NamedTuple):
    limit: str
    used: str
    cache: str


_VERSION_1: Final = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2: Final = _Names("memory.max", "memory.current", "inactive_file")


def _mounts(cgroups: Path, controllers: list[str]) -> list[tuple[Path, _Names]]:
    """Return where cgroups of a line of the membership may be mounted, and what their files are called."""
    if "memory" in controllers:
        return [(cgroups / "memory", _VERSION_1)]
    return [(cgroups, _VERSION_2), (cgroups / "unified", _VERSION_2)] if controllers == [""] else []


def _field(path: Path, name: str) -> int:
    for line in path.read_text("ascii").splitlines():
        words = line.split()
        if words and words[0] == name:
            return int(words[1])
    raise ValueError(name)
