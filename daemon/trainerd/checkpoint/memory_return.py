"""Brings a copy in memory back: makes it the newest checkpoint on disk, through the ordinary commit.

A copy is used if it is whole, is newer than all on disk, and follows from what is there. Any other one is
left, with a reason: the run goes on from the disk, as it would without the copy.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainerd.checkpoint.checkpoint_names import CheckpointName
from trainerd.checkpoint.digest import READ_BYTES
from trainerd.contract.failpoints import declare
from trainerd.contract.regular_file import open_regular
from trainerd.errors import CorruptError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trainerd.checkpoint.committed import Checkpoint
    from trainerd.checkpoint.manifest import FileEntry, Manifest
    from trainerd.checkpoint.store import CheckpointStore

__all__ = ["MEMORY_REASON", "Returned", "bring_back", "why_not"]

MEMORY_REASON = "memory"
"""Reason, in the manifest, of a checkpoint that was kept in memory when its process died."""

RETURNED = declare(
    "memory.returned", "the checkpoint on disk, and its copy in memory, which the next start removes unread"
)


@dataclass(frozen=True)
class Returned:
    """What came of the look at the copies in memory.

    Attributes:
        checkpoint: The one that is on disk now, None if none was brought back.
        reasons: Why newer ones were not.
    """

    checkpoint: Checkpoint | None = None
    reasons: tuple[str, ...] = ()


def why_not(copy: Manifest, newest: Checkpoint | None, *, history_bytes: int) -> str | None:
    """Return why a copy in memory is not what the run goes on from, None if it is.

    Args:
        copy: Its manifest.
        newest: The newest checkpoint on disk, None if there is none.
        history_bytes: Size of the metric history.
    """
    step = newest.step if newest is not None else 0
    if copy.step <= step:
        return f"the disk has step {step}"
    if copy.world_size != 1:
        return f"it holds one of {copy.world_size} ranks"
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


def bring_back(
    disk: CheckpointStore,
    memory: CheckpointStore,
    *,
    history_bytes: int,
    make_room: Callable[[int], None],
) -> Returned:
    """Make the newest copy that can be used the newest checkpoint on disk. Needs the lock of both.

    What it follows from is on disk: a copy that cannot be used costs the steps since, and nothing else.

    Args:
        disk: Checkpoints of the run.
        memory: Copies in memory.
        history_bytes: Size of the metric history.
        make_room: Sees to it that so many bytes will fit.

    Raises:
        FencedError: Another attempt has taken over.
    """
    reasons = [problem.message for problem in memory.problems()]
    present = disk.checkpoints()
    newest = present[-1] if present else None
    for copy in reversed(memory.checkpoints()):
        if newest is not None and copy.step <= newest.step:
            break  # the ordinary case after a save on disk
        problem = why_not(copy.manifest, newest, history_bytes=history_bytes)
        if problem is None:
            try:
                make_room(copy.manifest.bytes)
                return Returned(_copied(disk, copy, newest), tuple(reasons))
            except (CorruptError, SpaceError) as error:
                problem = error.message
            except OSError as error:
                problem = f"it could not be read, or written to disk: {error}"
        reasons.append(f"{copy.name}: {problem}")
    return Returned(None, tuple(reasons))


def _copied(disk: CheckpointStore, copy: Checkpoint, newest: Checkpoint | None) -> Checkpoint:
    """Write a copy to disk, and return it once it is durable. All that was read has its digest."""
    staging = disk.begin(copy.step)
    try:
        for entry in copy.manifest.files:
            _check(staging.write(entry.name, _content(copy.path / entry.name)), entry)
        parent = newest.name if newest is not None else None
        manifest = dataclasses.replace(copy.manifest, parent=parent)
        # Not read back here: the resume reads and verifies it.
        checkpoint = disk.commit(staging, manifest, reads_back=False)
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
