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


class SaveWords:
    """What the ranks say to one another while they make one checkpoint.

    Args:
        ranks: Who they are.
        key: Under which they say it.
    """

    def __init__(self, ranks: Ranks, key: str) -> None:
        self.ranks = ranks
        self._key = key

    def say(self, word: str, value: dict[str, Any]) -> None:
        """Say something to all.

        Raises:
            RankLostError: The store is gone.
        """
        self.ranks.put(f"{self._key}/{word}", value)

    def hear(self, word: str) -> dict[str, Any]:
        """Wait until it is said, and return it.

        Raises:
            RankLostError: A rank is gone, or it was not said in time.
            SpaceError: What is said is that there was no room.
            OSError: What is said is another problem.
        """
        return self.checked(word, self.ranks.get(f"{self._key}/{word}", limit_s=ANNOUNCEMENT_LIMIT_S))

    def checked(self, word: str, said: dict[str, Any]) -> dict[str, Any]:
        """Return what was said, unless it is a problem: that is raised, as `hear` does."""
        if "problem" not in said:
            return said
        kind = SpaceError if said["is_space"] else OSError
        _, _, rank = word.partition("/")
        raise kind(f"rank {rank or 0} could not save its part of the checkpoint: {said['problem']}")

    def say_problem(self, word: str) -> None:
        """Say what is being raised, unless the word was said already."""
        error = sys.exception()
        with contextlib.suppress(RankLostError):  # no other rank is left to tell
            if not self.ranks.has(f"{self._key}/{word}"):
                self.say(word, self.problem_of(error))

    def problem_of(self, error: BaseException | None) -> dict[str, Any]:
        """Return what is said of an error."""
        return {"problem": f"{type(error).__name__}: {error}", "is_space": isinstance(error, SpaceError)}


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
        words = SaveWords(self._ranks, f"save/{self._serial}")
        if self._ranks.rank == 0:
            return LeadingPart(words, self._store, manifest)
        return FollowingPart(words, manifest)


class _Part:
    """What both kinds of part have in common."""

    def __init__(self, words: SaveWords, staging: Staging, manifest: Manifest) -> None:
        self._words = words
        self._rank = words.ranks.rank
        self.staging = staging
        self._boundary = boundary_of(manifest)

    def _check_boundary(self, rank: int, boundary: list[int]) -> None:
        if boundary != self._boundary:
            raise InternalError(
                f"rank {rank} saves (step, epoch, batch) {boundary}, rank {self._rank} "
                f"{self._boundary}: "
                "the ranks do not run the same loops"
            )


class LeadingPart(_Part):
    """Rank 0's part: its files, and the commit."""

    def __init__(self, words: SaveWords, store: CheckpointStore, manifest: Manifest) -> None:
        try:
            staging = store.begin(manifest.step)
        except BaseException:
            words.say_problem("begun")
            raise
        super().__init__(words, staging, manifest)
        self._store = store
        words.say("begun", {"path": str(staging.path), "boundary": self._boundary})

    def commit(self, manifest: Manifest, *, reads_back: bool = True) -> Checkpoint:
        """Wait for the others' files and make all of it a checkpoint.

        Raises:
            RankLostError: A rank is gone, or did not announce its files in time.
            SpaceError: A rank had no room for its files.
            OSError: A rank could not write its files.
            InternalError: A rank announced those of another boundary, or others than its own. Nothing is
                committed.
        """
        for rank in self._words.ranks.others:
            said = self._words.hear(f"files/{rank}")
            self._check_boundary(rank, said["boundary"])
            files = [FileEntry(**entry) for entry in said["files"]]
            if {entry.name for entry in files} != {tensors_name(rank), tree_name(rank)}:
                raise InternalError(f"rank {rank} announces {[entry.name for entry in files]}")
            for entry in files:
                self.staging.add(entry)
        checkpoint = self._store.commit(self.staging, manifest, reads_back=reads_back)
        self._words.say("done", {"name": checkpoint.name})
        return checkpoint

    def abandon(self) -> None:
        """Give up, and tell the others."""
        self.staging.abandon()
        self._words.say_problem("done")


class FollowingPart(_Part):
    """Another rank's part: its files."""

    def __init__(self, words: SaveWords, manifest: Manifest) -> None:
        said = words.hear("begun")
        super().__init__(words, Staging(Path(said["path"]), manifest.step), manifest)
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
        self._words.say(f"files/{self._rank}", {"boundary": self._boundary, "files": files})
        ANNOUNCED.hit()
        said = self._words.hear("done")
        return read_checkpoint(self.staging.directory / said["name"])

    def abandon(self) -> None:
        """Give up, and tell rank 0. The folder is its to remove."""
        self._words.say_problem(f"files/{self._rank}")


def boundary_of(manifest: Manifest) -> list[int]:
    """Return what two ranks have in common only if they are at the same boundary."""
    return [manifest.step, manifest.epoch, manifest.batch]
