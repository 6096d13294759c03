"""Brings a copy in memory back: finds the one to go on from, and makes it the newest checkpoint on disk.

A copy is used if it is whole, is newer than all on disk, and follows from what is there. Any other one is
left, with a reason: the run goes on from the disk, as it would without the copy. What is used becomes a
checkpoint through the ordinary commit, which may happen while the run goes on already.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from trainerd.checkpoint.checkpoint_names import CheckpointName
from trainerd.checkpoint.committed import Checkpoint
from trainerd.checkpoint.digest import READ_BYTES
from trainerd.checkpoint.staging import free_place
from trainerd.contract.counted import counted
from trainerd.contract.failpoints import declare
from trainerd.contract.regular_file import open_regular
from trainerd.errors import CorruptError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trainerd.checkpoint.manifest import FileEntry, Manifest
    from trainerd.checkpoint.store import CheckpointStore

__all__ = ["Returned", "find_copy", "why_not", "write_back"]

RETURNED = declare(
    "memory.returned", "the checkpoint on disk, and its copy in memory, which the next start removes unread"
)


Content = TypeVar("Content")


@dataclass(frozen=True)
class Returned(Generic[Content]):
    """A copy that the run goes on from.

    Attributes:
        copy: The copy.
        content: What was read of it.
        checkpoint: The checkpoint on disk that `write_back` makes of it.
    """

    copy: Checkpoint
    content: Content
    checkpoint: Checkpoint


def why_not(
    copy: Manifest, newest: Checkpoint | None, *, history_bytes: int, world_size: int = 1
) -> str | None:
    """Return why a copy in memory is not what the run goes on from, None if it is.

    Args:
        copy: Its manifest.
        newest: The newest checkpoint on disk, None if there is none.
        history_bytes: Size of the metric history.
        world_size: How many ranks go on.
    """
    step = newest.step if newest is not None else 0
    if copy.step <= step:
        return f"the disk has step {step}"
    if copy.world_size != world_size:
        return f"it is of {counted(copy.world_size, 'rank')}, and {world_size} go on"
    if copy.history_bytes > history_bytes:
        return f"it counts on {copy.history_bytes} bytes of the metric history, which has {history_bytes}"
    if not _follows(copy, newest):
        has = newest.name if newest is not None else "no checkpoint"
        return f"it follows from {copy.parent or 'another beginning'}, and the disk has {has}"
    return None


def _follows(copy: Manifest, newest: Checkpoint | None) -> bool:
    """Tell whether the newest checkpoint on disk is what the copy follows from, or one between the two.

    After a rollback an older one is the newest, and after damage too.
    """
    if newest is None:
        return copy.parent is None
    is_same_line = newest.manifest.lineage == copy.lineage
    if copy.parent is None:
        return is_same_line
    parent = CheckpointName.parse(copy.parent)
    return parent is not None and (newest.place == parent or (newest.place > parent and is_same_line))


def find_copy(
    disk: CheckpointStore,
    memory: CheckpointStore,
    read: Callable[[Checkpoint], Content],
    *,
    history_bytes: int,
    make_room: Callable[[int], None],
    world_size: int = 1,
) -> tuple[Returned[Content] | None, tuple[str, ...]]:
    """Return the newest copy that can be used, None if there is none, and why newer ones cannot.

    What it follows from is on disk: a copy that cannot be used costs the steps since, and nothing else. Needs
    the lock of both.

    Args:
        disk: Checkpoints of the run.
        memory: Copies in memory.
        read: Reads a copy and verifies it on the way; raises what `CheckpointStore.verify` raises.
        history_bytes: Size of the metric history.
        make_room: Sees to it that so many bytes will fit.
        world_size: How many ranks go on: a copy holds the files of as many.

    Raises:
        FencedError: Another attempt has taken over.
    """
    reasons = [problem.message for problem in memory.problems()]
    present = disk.checkpoints()
    newest = present[-1] if present else None
    for copy in reversed(memory.checkpoints()):
        if newest is not None and copy.step <= newest.step:
            break  # the ordinary case after a save on disk
        problem = why_not(copy.manifest, newest, history_bytes=history_bytes, world_size=world_size)
        if problem is None:
            try:
                make_room(copy.manifest.bytes)
                return Returned(copy, read(copy), _expected(disk, copy, newest)), tuple(reasons)
            except (CorruptError, SpaceError) as error:
                problem = error.message
            except OSError as error:
                problem = f"it could not be read, or written to disk: {error}"
        reasons.append(f"{copy.name}: {problem}")
    return None, tuple(reasons)


def _expected(disk: CheckpointStore, copy: Checkpoint, newest: Checkpoint | None) -> Checkpoint:
    manifest = dataclasses.replace(copy.manifest, parent=newest.name if newest is not None else None)
    place = free_place(disk.directory, copy.step)
    return Checkpoint(str(place), disk.directory / str(place), place.step, place.ordinal, manifest)


def write_back(disk: CheckpointStore, found: Returned[Content]) -> Checkpoint:
    """Write a copy to disk, and return the checkpoint once it is durable. All that was read has its digest.

    Needs the lock of both.

    Raises:
        CorruptError: The copy has changed since it was found.
        SpaceError: The disk is full or read-only.
        FencedError: Another attempt has taken over.
        OSError: It could not be read, or not written.
    """
    copy = found.copy
    staging = disk.begin(copy.step)
    try:
        for entry in copy.manifest.files:
            _check(staging.write(entry.name, _content(copy.path / entry.name)), entry)
        checkpoint = disk.commit(staging, found.checkpoint.manifest)
    except BaseException:
        staging.abandon()
        raise
    RETURNED.hit()
    return checkpoint


def _check(found: FileEntry, entry: FileEntry) -> None:
    if found != entry:
        raise CorruptError(
            f"{entry.name} has {found.bytes} bytes with digest {found.digest}, not {entry.bytes} with "
            f"{entry.digest}"
        )


def _content(path: Path) -> Iterator[bytes]:
    descriptor = open_regular(path)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
        while data := file.read(READ_BYTES):
            yield data
