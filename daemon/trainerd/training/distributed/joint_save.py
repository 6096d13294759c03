"""One checkpoint out of the files of several ranks.

Rank 0 begins the staging folder and says where it is; every rank writes and syncs its files there and
announces them together with the boundary that they are of; rank 0 commits when all have announced the same
one, and says so. All of it happens in the threads that write, so no training loop waits for another rank.

Invariants:
    The n-th save of one rank is the n-th save of every rank, for saves are agreed upon (see `agreement`).
    Nothing is committed before each rank has proved, file by file, that its part of this very boundary is
    durable. A rank that ends meanwhile ends the save: the staging folder is abandoned, the former checkpoints
    stay.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainerd.checkpoint.committed import read_checkpoint
from trainerd.checkpoint.manifest import FileEntry
from trainerd.checkpoint.staging import Staging
from trainerd.contract.failpoints import declare
from trainerd.errors import InternalError, RankLostError, SpaceError
from trainerd.training.state.rank_files import tensors_name, tree_name

if TYPE_CHECKING:
    from trainerd.checkpoint.committed import Checkpoint
    from trainerd.checkpoint.manifest import Manifest
    from trainerd.checkpoint.store import CheckpointStore
    from trainerd.training.distributed.rank_store import Ranks

ANNOUNCED = declare(
    "ranks.announced", "a staging folder with the files of some ranks; swept at the next start"
)

ANNOUNCEMENT_LIMIT_S: Final = 600.0
"""How long rank 0 waits for the files of another rank, in seconds. One that is known to be gone is not waited
for."""


class JointSaves:
    """Begins saves that all ranks make together.

    Args:
        ranks: Who they are.
        store: Where the checkpoints go.
    """

    def __init__(self, ranks: Ranks, store: CheckpointStore) -> None:
        self._ranks = ranks
        self._store = store
        self._serial = 0

    def begin(self, manifest: Manifest) -> LeadingPart | FollowingPart:
        """Begin this rank's part of the next checkpoint.

        Raises:
            SpaceError: The disk is full or read-only.
            RankLostError: Rank 0 is gone, or did not begin in time.
            InternalError: The ranks are not at the same boundary.
        """
        self._serial += 1
        key = f"save/{self._serial}"
        if self._ranks.rank == 0:
            return LeadingPart(self._ranks, key, self._store, manifest)
        return FollowingPart(self._ranks, key, manifest)


class _Part:
    """What both kinds of part have in common."""

    def __init__(self, ranks: Ranks, key: str, staging: Staging, manifest: Manifest) -> None:
        self._ranks = ranks
        self._key = key
        self.staging = staging
        self._boundary = _boundary_of(manifest)

    def _check_boundary(self, rank: int, boundary: list[int]) -> None:
        if boundary != self._boundary:
            raise InternalError(
                f"rank {rank} saves (step, epoch, batch) {boundary}, rank {self._ranks.rank} "
                f"{self._boundary}: "
                "the ranks do not run the same loops"
            )


class LeadingPart(_Part):
    """Rank 0's part: its files, and the commit."""

    def __init__(self, ranks: Ranks, key: str, store: CheckpointStore, manifest: Manifest) -> None:
        try:
            staging = store.begin(manifest.step)
        except BaseException:
            _say_problem(ranks, f"{key}/begun")
            raise
        super().__init__(ranks, key, staging, manifest)
        self._store = store
        ranks.put(f"{key}/begun", {"path": str(staging.path), "boundary": self._boundary})

    def commit(self, manifest: Manifest, *, reads_back: bool = True) -> Checkpoint:
        """Wait for the others' files and make all of it a checkpoint.

        Raises:
            RankLostError: A rank is gone, or did not announce its files in time.
            SpaceError: A rank had no room for its files.
            OSError: A rank could not write its files.
            InternalError: A rank announced those of another boundary, or others than its own. Nothing is
                committed.
        """
        for rank in self._ranks.others:
            said = self._ranks.get(f"{self._key}/files/{rank}", limit_s=ANNOUNCEMENT_LIMIT_S)
            _raise_problem(said, f"rank {rank}")
            self._check_boundary(rank, said["boundary"])
            files = [FileEntry(**entry) for entry in said["files"]]
            if {entry.name for entry in files} != {tensors_name(rank), tree_name(rank)}:
                raise InternalError(f"rank {rank} announces {[entry.name for entry in files]}")
            for entry in files:
                self.staging.add(entry)
        checkpoint = self._store.commit(self.staging, manifest, reads_back=reads_back)
        self._ranks.put(f"{self._key}/done", {"name": checkpoint.name})
        return checkpoint

    def abandon(self) -> None:
        """Give up, and tell the others."""
        self.staging.abandon()
        _say_problem(self._ranks, f"{self._key}/done")


class FollowingPart(_Part):
    """Another rank's part: its files."""

    def __init__(self, ranks: Ranks, key: str, manifest: Manifest) -> None:
        said = ranks.get(f"{key}/begun", limit_s=ANNOUNCEMENT_LIMIT_S)
        _raise_problem(said, "rank 0")
        super().__init__(ranks, key, Staging(Path(said["path"]), manifest.step), manifest)
        try:
            self._check_boundary(0, said["boundary"])
        except InternalError:
            self.abandon()
            raise

    def commit(self, manifest: Manifest, *, reads_back: bool = True) -> Checkpoint:
        """Announce the files and wait until rank 0 has committed them.

        Raises:
            RankLostError: Rank 0 is gone, or did not commit in time.
            SpaceError: There was no room.
            OSError: Some rank could not write its files.
        """
        del manifest, reads_back  # rank 0's business
        files = [asdict(entry) for entry in self.staging.entries]
        self._ranks.put(f"{self._key}/files/{self._ranks.rank}", {"boundary": self._boundary, "files": files})
        ANNOUNCED.hit()
        said = self._ranks.get(f"{self._key}/done", limit_s=ANNOUNCEMENT_LIMIT_S)
        _raise_problem(said, "rank 0")
        return read_checkpoint(self.staging.directory / said["name"])

    def abandon(self) -> None:
        """Give up, and tell rank 0. The folder is its to remove."""
        _say_problem(self._ranks, f"{self._key}/files/{self._ranks.rank}")


def _boundary_of(manifest: Manifest) -> list[int]:
    return [manifest.step, manifest.epoch, manifest.batch]


def _say_problem(ranks: Ranks, key: str) -> None:
    error = sys.exception()
    with contextlib.suppress(RankLostError):  # no other rank is left to tell
        if not ranks.has(key):
            is_space = isinstance(error, SpaceError)
            ranks.put(key, {"problem": f"{type(error).__name__}: {error}", "is_space": is_space})


def _raise_problem(said: dict[str, Any], who: str) -> None:
    if "problem" in said:
        kind = SpaceError if said["is_space"] else OSError
        raise kind(f"{who} could not save its part of the checkpoint: {said['problem']}")
