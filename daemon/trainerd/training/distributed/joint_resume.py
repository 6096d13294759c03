"""Resuming several ranks from one checkpoint: all of them from the same one, or none.

Rank 0 finds and verifies it, and says which one it is. Each rank reads its own files of it, whose digests it
compares itself, and says whether they fit; only if all said yes does any of them change its objects.

Where the number of ranks is another one than at the save, every rank takes what is replicated from rank 0's
files, and of what was sharded its new part, out of the files of all.
Its random generators then begin anew, each rank's with a seed of its own.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from trainerd.errors import CorruptError, MismatchError
from trainerd.training.state.rank_files import read_verified, tensors_name, tree_name
from trainerd.training.state.shards import WholeNeededError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.checkpoint.committed import Checkpoint
    from trainerd.checkpoint.store import CheckpointStore
    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.state.restore import StateTree
    from trainerd.training.state.tracked import Objects


def find_together(
    ranks: Ranks, store: CheckpointStore, find: Callable[[], Checkpoint | None]
) -> Checkpoint | None:
    """Return the checkpoint that rank 0 finds by `find`, None if there is none.

    Raises:
        RankLostError: Rank 0 failed.
    """

    def find_name() -> str | None:
        found = find()
        return found.name if found is not None else None

    name = ranks.agreed("resume/checkpoint", find_name)
    return store.find(name) if name is not None else None


def read_together(ranks: Ranks, checkpoint: Checkpoint, objects: Objects) -> StateTree:
    """Return this rank's state, once every rank has its own and has compared it with its objects.

    Raises:
        MismatchError: It does not fit on one of the ranks; nothing was changed on any.
        CorruptError: The files of one rank are damaged.
    """
    tree: StateTree | None = None
    problem: MismatchError | CorruptError | None = None
    try:
        tree = _read_own(ranks, checkpoint, objects)
    except (MismatchError, CorruptError) as error:
        problem = error
    _all_or_none(ranks, "resume/fits", problem)
    assert tree is not None
    return tree


def _read_own(ranks: Ranks, checkpoint: Checkpoint, objects: Objects) -> StateTree:
    """Return what this rank's objects take: its own part if that is what they hold, or else the whole."""
    whose = rank_to_read(checkpoint, ranks.rank, ranks.world_size)
    try:
        tree = read_verified(_only_files_of(checkpoint, whose), whose, is_whole=False)
        tree.check(objects, source=checkpoint.name)
    except WholeNeededError:
        tree = read_verified(checkpoint, whose)
        tree.check(objects, source=checkpoint.name)
    return tree


def confirm_together(ranks: Ranks, problem: MismatchError | None) -> None:
    """Say whether this rank's objects took their state, and hear it from the others.

    Raises:
        MismatchError: Those of some rank did not.
    """
    _all_or_none(ranks, "resume/taken", problem)


def rank_to_read(checkpoint: Checkpoint, rank: int, world_size: int) -> int:
    """Return whose files a rank reads: its own, or rank 0's if there were not as many ranks then."""
    return rank if checkpoint.manifest.world_size == world_size else 0


def _only_files_of(checkpoint: Checkpoint, rank: int) -> Checkpoint:
    names = {tensors_name(rank), tree_name(rank)}
    files = tuple(entry for entry in checkpoint.manifest.files if entry.name in names)
    return dataclasses.replace(checkpoint, manifest=dataclasses.replace(checkpoint.manifest, files=files))


def _all_or_none(ranks: Ranks, key: str, problem: MismatchError | CorruptError | None) -> None:
    mine = None
    if problem is not None:
        mine = {
            "message": problem.message,
            "differences": list(getattr(problem, "differences", ())),
            "is_corrupt": isinstance(problem, CorruptError),
        }
    all_said = ranks.gather(key, mine)
    if problem is not None:
        raise problem
    for rank, said in enumerate(all_said):
        if said is None:
            continue
        if said["is_corrupt"]:
            raise CorruptError(f"rank {rank}: {said['message']}")
        raise MismatchError(f"rank {rank}: {said['message']}", said["differences"])
