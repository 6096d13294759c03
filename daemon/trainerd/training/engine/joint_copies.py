"""One copy in memory out of the files of several ranks: of a boundary that all of them hold, or none.

At which boundary a copy is made, the ranks agree upon (see `agreement`). Each rank copies its state aside
there and says that it is ready. When all are, rank 0 looks whether there is memory for the files of all, and
begins the staging folder; from there on it is an ordinary save of several ranks, into the place in memory.

Invariants:
    A copy has its name only once the files of all ranks are in it. Until then the copy before it stays.
    A rank that makes no copy says so. What one rank gives up, all give up, and try again at a later boundary.
    No wait outlasts a rank that is gone, nor this rank's own calling off: a save on disk goes first.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from trainerd.contract.failpoints import declare
from trainerd.errors import InternalError
from trainerd.training.distributed.joint_save import FollowingPart, LeadingPart, SaveWords, boundary_of
from trainerd.training.distributed.rank_store import POLL_S
from trainerd.training.writing.direct_file import AbandonedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trainerd.checkpoint.manifest import Manifest
    from trainerd.checkpoint.store import Checkpoint, CheckpointStore
    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.writing.destination import Part

READY = declare("memory.ready", "the copy before this one: no file of this one is written yet")

WRITTEN_LIMIT_S: Final = 600.0
"""How long a rank waits for the part of another rank, in seconds. One that is known to be gone, and this
rank's own calling off, end the wait."""


class CopyPlace(Protocol):
    """Where rank 0 has the copies."""

    def store_for(self, size_bytes: int) -> CheckpointStore:
        """Return the place, which has room for a copy of that size."""
        ...

    def commit(self, part: Part, manifest: Manifest, *, is_urgent: bool) -> Checkpoint:
        """Make what was written the newest copy, and remove the one before."""
        ...


class CopyWords(SaveWords):
    """What the ranks say to one another while they make one copy.

    Args:
        ranks: Who they are.
        number: Number of the round in which it was agreed upon.
        is_called_off: Whether this rank has no more use for the copy.
    """

    def __init__(self, ranks: Ranks, number: int, is_called_off: Callable[[], bool] = lambda: False) -> None:
        super().__init__(ranks, f"copy/{number}")
        self.number = number
        self._is_called_off = is_called_off

    def hear(self, word: str) -> dict[str, Any]:
        """Wait until it is said, and return it.

        Raises:
            AbandonedError: This rank, or the one that was to say it, has given the copy up.
            RankLostError: A rank is gone.
            SpaceError: What is said is that there was no room.
            OSError: What is said is another problem.
        """
        deadline_s = time.monotonic() + WRITTEN_LIMIT_S
        while not self.ranks.has(f"{self._key}/{word}"):
            self.ranks.look_for_the_lost()
            if self._is_called_off() or time.monotonic() >= deadline_s:
                raise AbandonedError
            time.sleep(POLL_S)
        said: dict[str, Any] = self.ranks.get(f"{self._key}/{word}")
        if said.get("is_given_up"):
            raise AbandonedError
        return self.checked(word, said)

    def problem_of(self, error: BaseException | None) -> dict[str, Any]:
        return {**super().problem_of(error), "is_given_up": isinstance(error, AbandonedError)}

    def forget(self) -> None:
        """Remove all that was said: no rank asks for it any more."""
        each = [f"{word}/{rank}" for word in ("ready", "files") for rank in self.ranks.others]
        for word in ("begun", "done", *each):
            self.ranks.forget(f"{self._key}/{word}")


class JointCopies:
    """Makes copies that consist of the files of all ranks.

    Args:
        ranks: Who they are.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.rank = ranks.rank
        self._ranks = ranks
        self._past: list[CopyWords] = []

    def decline(self, number: int) -> None:
        """Say that this rank has nothing to copy at the boundary of an agreement.

        Args:
            number: Number of the round in which it was agreed upon.

        Raises:
            RankLostError: The store is gone.
        """
        words = CopyWords(self._ranks, number)
        word = "begun" if self.rank == 0 else f"ready/{self.rank}"
        words.say(word, words.problem_of(AbandonedError("there is nothing to copy")))
        if self.rank == 0:
            self._past.append(words)

    def lead(self, words: CopyWords, manifest: Manifest, *, size_bytes: int, place: CopyPlace) -> Part:
        """Begin rank 0's part of a copy, once all ranks are ready.

        Args:
            words: What is said of it.
            manifest: Manifest of it.
            size_bytes: Size of this rank's files.
            place: Where the copies are.

        Raises:
            AbandonedError: A rank has nothing to copy, or has given up.
            RankLostError: A rank is gone.
            InternalError: The ranks are not at the same boundary.
            SpaceError: There is no room.
        """
        try:
            heard = {rank: words.hear(f"ready/{rank}") for rank in self._ranks.others}
            store = place.store_for(bytes_of_all(boundary_of(manifest), size_bytes, heard))
        except BaseException:
            words.say_problem("begun")
            self._past.append(words)
            raise
        for past in [each for each in self._past if each.number < words.number]:
            past.forget()  # a rank that is ready for this copy has left those before it
            self._past.remove(past)
        self._past.append(words)
        READY.hit()
        return LeadingPart(words, store, manifest)

    def follow(self, words: CopyWords, manifest: Manifest, *, size_bytes: int) -> Part:
        """Begin another rank's part of a copy: say that it is ready, and wait for rank 0.

        Raises:
            AbandonedError: Some rank has nothing to copy, or has given up.
            RankLostError: A rank is gone.
            OSError: This rank does not see the place in memory, or some rank has a problem.
        """
        words.say(f"ready/{self.rank}", {"boundary": boundary_of(manifest), "bytes": size_bytes})
        READY.hit()
        try:
            part = FollowingPart(words, manifest)
            part.staging.path.stat()
        except BaseException:
            words.say_problem(f"files/{self.rank}")
            raise
        return part

    def words_of(self, number: int, is_called_off: Callable[[], bool]) -> CopyWords:
        """Return what is said of the copy that was agreed upon in a round."""
        return CopyWords(self._ranks, number, is_called_off)


def bytes_of_all(boundary: list[int], size_bytes: int, heard: Mapping[int, dict[str, Any]]) -> int:
    """Return how much room the files of all ranks take, if all hold the same boundary.

    A pure decision: at which boundary there is a copy is decided here, by rank 0, for all.

    Args:
        boundary: Boundary that rank 0 holds.
        size_bytes: Size of its files.
        heard: What each other rank says that it holds.

    Raises:
        InternalError: They do not hold the same one.
    """
    for rank, said in heard.items():
        if said["boundary"] != boundary:
            raise InternalError(
                f"rank {rank} copies (step, epoch, batch) {said['boundary']}, rank 0 {boundary}: "
                "the ranks do not run the same loops"
            )
    return size_bytes + sum([int(said["bytes"]) for said in heard.values()])


class JointCopy:
    """One copy that all ranks make. A destination of a `CheckpointWriter`.

    Args:
        copies: Makes it.
        number: Number of the round in which it was agreed upon.
        size_bytes: Size of this rank's files.
        place: Where the copies are; rank 0 alone asks.

    Attributes:
        rank: Rank whose files are written.
        is_joint: Whether several ranks write the files of one copy.
        called_off: Set where this rank has no more use for the copy.
    """

    def __init__(self, copies: JointCopies, number: int, *, size_bytes: int, place: CopyPlace) -> None:
        self.rank = copies.rank
        self.is_joint = True
        self.called_off = threading.Event()
        self._copies = copies
        self._words = copies.words_of(number, self.called_off.is_set)
        self._size_bytes = size_bytes
        self._place = place

    def begin(self, manifest: Manifest) -> Part:
        """Begin this rank's part. From the thread that writes, as `commit`."""
        if self.rank == 0:
            return self._copies.lead(self._words, manifest, size_bytes=self._size_bytes, place=self._place)
        return self._copies.follow(self._words, manifest, size_bytes=self._size_bytes)

    def commit(self, part: Part, manifest: Manifest, *, is_urgent: bool) -> Checkpoint:
        """Make the files of all ranks the newest copy."""
        if self.rank == 0:
            return self._place.commit(part, manifest, is_urgent=is_urgent)
        return part.commit(manifest, reads_back=False)
