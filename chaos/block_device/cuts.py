"""Cuts a filesystem at random moments of the work and recovers it, again and again on the same disk."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.block_device.filesystem import Filesystem
from chaos.block_device.work import AIMED, FILE_BYTES, WORKS, Worker
from chaos.power_cut.recovery import complaint
from chaos.power_cut.scenarios import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Cut", "Result", "cut_repeatedly"]


@dataclass(frozen=True)
class Cut:
    """One cut.

    Attributes:
        work: What was cut.
        after_s: How long after its beginning.
        is_committed: Whether an unrelated fsync had made the filesystem commit its log just before.
        last_said: What was reported last.
        complaint: What is wrong with what was found, None if nothing is.
    """

    work: str
    after_s: float
    is_committed: bool
    last_said: str
    complaint: str | None


@dataclass
class Result:
    """What came of all cuts of one filesystem."""

    cuts: list[Cut] = field(default_factory=list)
    duration_s: float = 0.0

    @property
    def broken(self) -> list[Cut]:
        return [cut for cut in self.cuts if cut.complaint is not None]

    @property
    def by_work(self) -> Counter[str]:
        return Counter(cut.work for cut in self.cuts)


def cut_repeatedly(
    kind: str,
    count: int,
    *,
    seed: int,
    works: Sequence[str] = tuple(WORKS),
    spoil: Callable[[], None] | None = None,
    is_committed: bool | None = None,
    stops_at: int | None = None,
) -> Result:
    """Cut `count` times, each work in turn, at moments that `seed` chooses. Needs `own_mounts` before.

    Args:
        kind: The filesystem.
        count: How often.
        seed: Of the moments.
        works: What is done.
        spoil: Breaks the protocol, for a control. Each cut then has a new filesystem: what is broken stays
            broken.
        is_committed: Whether an unrelated fsync comes just before each cut; every other time if None.
        stops_at: After so many broken ones.
    """
    choice = random.Random(f"{seed} {kind}")
    result = Result()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trainerd-disk-") as scratch:
        disk = Filesystem(kind, Path(scratch))
        try:
            for number in range(count):
                if spoil is not None and number:
                    disk.remove()
                    disk = Filesystem(kind, Path(scratch))
                commits = number // len(works) % 2 == 0 if is_committed is None else is_committed
                name = works[number % len(works)]
                result.cuts.append(_cut(disk, name, choice, commits=commits, spoil=spoil))
                if len(result.broken) == stops_at:
                    break
        finally:
            disk.remove()
    result.duration_s = time.monotonic() - began_s
    return result


def _cut(
    disk: Filesystem, name: str, choice: random.Random, *, commits: bool, spoil: Callable[[], None] | None
) -> Cut:
    work = (WORKS | AIMED)[name]
    disk.mount()
    folder = disk.root / work.kind
    if not folder.exists():
        folder.mkdir()
        os.sync()
    after_s = choice.uniform(0, work.span_s)
    worker = Worker(work, folder, spoil=spoil)
    try:
        worker.wait_for_begin()
        time.sleep(after_s)
        if commits:
            _fsync_something_else(disk.root)
        said = worker.said()  # what is said later may be cut off, what was said before must not be
        disk.shut_down()
    finally:
        worker.end()
        disk.unmount()
    start = int(said[0].split()[1])
    newest = int(said[-1].split()[1])
    # A prune does not say which saves came before it, and more may have begun since the last word.
    scenario = Scenario(
        _nothing, work.kind, start, newest + 2 + (8 if name == "prune" else 0), size_bytes=FILE_BYTES
    )
    disk.mount()
    try:
        found = complaint(folder, scenario, said, goes_on=True)
    finally:
        disk.unmount()
    return Cut(name, after_s, commits, said[-1], found)


def _fsync_something_else(root: Path) -> None:
    """Make the filesystem commit its log.

    What others renamed may now be durable, and what they wrote not yet.
    """
    descriptor = os.open(root / "unrelated", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, b"something else\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _nothing(_act: object) -> None:
    return
