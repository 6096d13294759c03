"""Resuming several ranks from one checkpoint: all of them from the same one, or none.

Rank 0 finds and verifies it, and says which one it is. Each rank reads its own files of it, whose digests it
compares itself, and says whether they fit; only if all said yes does any of them change its objects.

Where the number of ranks differs from that at the save, every rank takes what is replicated from rank 0's
files, and of what was sharded its new part, out of the files of all.
Its random generators are then seeded again, each rank's with a seed of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from trainerd.checkpoint.checkpoint_names import CheckpointName
from trainerd.checkpoint.committed import Checkpoint, read_checkpoint
from trainerd.errors import CorruptError, MismatchError, UserError
from trainerd.training.interruption.leaving import say
from trainerd.training.state.rank_files import read_verified, tensors_name, tree_name
from trainerd.training.state.shards import WholeNeededError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.checkpoint.store import CheckpointStore
    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.state.objects import TrackedObjects
    from trainerd.training.state.restore import StateTree


T = TypeVar("T")

STALE_LIMIT_S: Final = 20.0
"""How long a network filesystem may take to show a checkpoint that rank 0 sees, in seconds."""
_STALE_LOOK_S: Final = 0.1


class CopiesInMemory(Protocol):
    """Copies of the newest boundary, one of which may be what all ranks resume from."""

    def copy_of(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """Return the copy that a checkpoint was found as, None if it is on disk. In rank 0."""
        ...

    def refuse(self, reason: str) -> None:
        """Do not go on from the copy that was found: a rank cannot. In rank 0."""
        ...

    def follow(self, checkpoint: Checkpoint) -> None:
        """Note that this rank goes on from a copy that rank 0 has found. In the other ranks."""
        ...


@dataclass(frozen=True)
class CommonSource:
    """What all ranks resume from.

    Attributes:
        checkpoint: The checkpoint.
        copy: Its copy in memory, None if it is on disk.
    """

    checkpoint: Checkpoint
    copy: Checkpoint | None

    @property
    def files(self) -> Checkpoint:
        """Where its files are read."""
        return self.copy or self.checkpoint


def find_together(
    ranks: Ranks,
    key: str,
    store: CheckpointStore,
    find: Callable[[], Checkpoint | None],
    memory: CopiesInMemory | None = None,
) -> CommonSource | None:
    """Return what rank 0 has found: the same for all ranks, on disk or in memory. None if there is nothing.

    Args:
        ranks: This rank and the others.
        key: Under which rank 0 says it.
        store: The checkpoints.
        find: Finds the newest one that is sound for rank 0, which alone calls it.
        memory: Copies in memory.

    Raises:
        RankLostError: A rank is gone.
        CorruptError: This rank does not see the copy that rank 0 sees.
    """

    def told() -> dict[str, str | None] | None:
        found = find()
        if found is None:
            return None
        copy = memory.copy_of(found) if memory is not None else None
        return {"name": found.name, "parent": found.manifest.parent, "copy": str(copy.path) if copy else None}

    said = ranks.agreed(key, told)
    if said is None:
        return None
    if said["copy"] is None:
        return CommonSource(_seen(lambda: store.find(said["name"])), None)
    return _in_memory(store, said["name"], said["parent"], Path(said["copy"]))


def _in_memory(store: CheckpointStore, name: str, parent: str | None, path: Path) -> CommonSource:
    """Return a copy, and the checkpoint that it is to become.

    Raises:
        CorruptError: This rank cannot read it.
    """
    place = CheckpointName.parse(name)
    assert place is not None, "rank 0 gives it a name"
    copy = _readable(lambda: read_checkpoint(path))
    manifest = dataclasses.replace(copy.manifest, parent=parent)
    return CommonSource(Checkpoint(name, store.directory / name, place.step, place.ordinal, manifest), copy)


def _readable(read: Callable[[], T]) -> T:
    """Return what `read` returns of a copy: one that a rank cannot read is no better than a damaged one.

    Raises:
        CorruptError: It could not be read.
    """
    try:
        return read()
    except OSError as error:
        raise CorruptError(f"it could not be read: {error}") from error


def resume_together(
    ranks: Ranks,
    store: CheckpointStore,
    find: Callable[[], Checkpoint | None],
    objects: TrackedObjects,
    memory: CopiesInMemory | None = None,
) -> tuple[Checkpoint, StateTree] | None:
    """Return the newest checkpoint that is sound on all ranks, and this rank's state of it.

    One that is damaged for any rank is moved to quarantine by rank 0, and all take the one before. A copy in
    memory that is damaged for any rank is used by none.

    Args:
        ranks: This rank and the others.
        store: The checkpoints.
        find: Finds the newest one that is sound for rank 0, which alone calls it.
        objects: What is tracked.
        memory: Copies in memory.

    Raises:
        MismatchError: It does not fit on one of the ranks; nothing was changed on any.
        RankLostError: A rank is gone.
    """
    found: list[Checkpoint] = []

    def find_and_note() -> Checkpoint | None:
        found[:] = [checkpoint] if (checkpoint := find()) is not None else []
        return checkpoint

    for number in itertools.count():
        key = f"resume/{number}"

        def look(key: str = key) -> CommonSource | None:
            return find_together(ranks, f"{key}/checkpoint", store, find_and_note, memory)

        try:
            return _read_together(ranks, look, objects, f"{key}/fits", memory)
        except CorruptError as error:
            if ranks.rank == 0:
                _set_aside(store, found[0], error.message, memory)
    raise AssertionError("there are not so many checkpoints")


def _set_aside(
    store: CheckpointStore, damaged: Checkpoint, reason: str, memory: CopiesInMemory | None
) -> None:
    if memory is not None and memory.copy_of(damaged) is not None:
        memory.refuse(reason)
        return
    say(f"trainerd: {damaged.name} is damaged and goes to quarantine: {reason}")
    store.quarantine(store.find(damaged.name), reason)


def _read_together(
    ranks: Ranks,
    look: Callable[[], CommonSource | None],
    objects: TrackedObjects,
    key: str,
    memory: CopiesInMemory | None,
) -> tuple[Checkpoint, StateTree] | None:
    """Return this rank's state, once every rank has its own and has compared it with its objects.

    Raises:
        MismatchError: It does not fit on one of the ranks; nothing was changed on any.
        CorruptError: The files of one rank are damaged. All ranks raise it.
    """
    found: tuple[Checkpoint, StateTree] | None = None
    problem: MismatchError | CorruptError | None = None
    try:
        source = look()
        if source is None:
            return None
        if source.copy is not None:
            tree = _readable(lambda: _read_own(ranks, source.files, objects))
        else:
            tree = _seen(lambda: _read_own(ranks, source.files, objects))
        found = source.checkpoint, tree
    except (MismatchError, CorruptError) as error:
        problem = error
    _all_or_none(ranks, key, problem, [])
    assert found is not None
    assert source is not None
    if memory is not None and source.copy is not None and ranks.rank != 0:
        memory.follow(source.checkpoint)
    return found


def _seen(look: Callable[[], T]) -> T:
    """Return what `look` returns, after some seconds if a network filesystem shows it late here."""
    deadline_s = time.monotonic() + STALE_LIMIT_S
    while True:
        try:
            return look()
        except MismatchError:
            raise
        except (UserError, FileNotFoundError):  # rank 0 has just verified it
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(_STALE_LOOK_S)


def _read_own(ranks: Ranks, checkpoint: Checkpoint, objects: TrackedObjects) -> StateTree:
    """Return what this rank's objects take: its own part if that is what they hold, or else the whole."""
    objects.check_ranks(checkpoint.name, saved=checkpoint.manifest.world_size, now=ranks.world_size)
    whose = rank_to_read(checkpoint, ranks.rank, ranks.world_size)
    try:
        tree = read_verified(_only_files_of(checkpoint, whose), whose, is_whole=False)
        tree.check(objects, source=checkpoint.name)
    except WholeNeededError:
        tree = read_verified(checkpoint, whose)
        tree.check(objects, source=checkpoint.name)
    return tree


def confirm_together(ranks: Ranks, problem: MismatchError | None, noted: list[str]) -> list[list[str]]:
    """Say whether this rank's objects took their state, and hear it from the others.

    Args:
        ranks: This rank and the others.
        problem: Why they did not, None if they did.
        noted: What the others are to know of it.

    Returns:
        What each rank noted.

    Raises:
        MismatchError: Those of some rank did not.
    """
    return _all_or_none(ranks, "resume/taken", problem, noted)


def rank_to_read(checkpoint: Checkpoint, rank: int, world_size: int) -> int:
    """Return whose files a rank reads: its own, or rank 0's if there were not as many ranks then."""
    return rank if checkpoint.manifest.world_size == world_size else 0


def _only_files_of(checkpoint: Checkpoint, rank: int) -> Checkpoint:
    names = {tensors_name(rank), tree_name(rank)}
    files = tuple([entry for entry in checkpoint.manifest.files if entry.name in names])
    return dataclasses.replace(checkpoint, manifest=dataclasses.replace(checkpoint.manifest, files=files))


def _all_or_none(
    ranks: Ranks, key: str, problem: MismatchError | CorruptError | None, noted: list[str]
) -> list[list[str]]:
    mine = None
    if problem is not None:
        mine = {
            "message": problem.message,
            "differences": list(getattr(problem, "differences", ())),
            "is_corrupt": isinstance(problem, CorruptError),
        }
    answers = ranks.gather(key, [mine, noted])
    all_said = [said for said, _ in answers]
    for rank, said in enumerate(all_said):  # damage first: all ranks answer it alike
        if said is not None and said["is_corrupt"]:
            raise CorruptError(f"rank {rank}: {said['message']}")
    if problem is not None:
        raise problem
    for rank, said in enumerate(all_said):
        if said is not None:
            raise MismatchError(f"rank {rank}: {said['message']}", said["differences"])
    return [their for _, their in answers]
