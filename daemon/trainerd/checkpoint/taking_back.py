"""Takes back a checkpoint that was set aside, and sets aside what replaced it: a rollback can be undone.

Needs the writers' lock. The checkpoints in place are set aside first; after a crash the run goes on from
where the two lines part, and the same request completes it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainerd.checkpoint.checkpoint_names import CheckpointName
from trainerd.checkpoint.committed import read_checkpoint
from trainerd.checkpoint.verify import verify_files
from trainerd.errors import CorruptError, UserError

if TYPE_CHECKING:
    from trainerd.checkpoint.aside import Aside
    from trainerd.checkpoint.committed import Checkpoint
    from trainerd.checkpoint.store import CheckpointStore

__all__ = ["TakenBack", "find_set_aside", "take_back"]


@dataclass(frozen=True)
class TakenBack:
    """What was done: the names of what is in place again, the newest last, and of what was set aside."""

    brought: tuple[str, ...]
    left: tuple[str, ...]


def find_set_aside(store: CheckpointStore, which: str) -> Aside | None:
    """Return what a rollback set aside under a name, the newest if there are several; None if nothing.

    ``step-120``, ``120``, the full name, or that of the folder, such as ``step-000000120~2``.
    """
    there = store.abandoned()
    asked = CheckpointName.asked(which)
    exact = [each for each in there if each.path.name == which]
    named = [each for each in there if asked is not None and each.name == str(asked)]
    return max(exact or named, key=lambda each: each.note.moved_wall_s, default=None)


def take_back(store: CheckpointStore, aside: Aside) -> TakenBack:
    """Put a checkpoint in place again, with those of its line before it.

    Raises:
        CorruptError: It does not verify; nothing was changed.
        OSError: It could not be read or moved.
    """
    target = _read(aside)
    verify_files(target)
    family = [(aside, target)]
    for each in store.abandoned():
        with contextlib.suppress(CorruptError, OSError):
            other = _read(each)
            if other.manifest.lineage == target.manifest.lineage and other.place < target.place:
                family.append((each, other))
    base = _where_they_part(store.checkpoints(), [checkpoint for _, checkpoint in family], target)
    reason = f"the run went back to {target.name}, which had been set aside"
    left = store.set_aside_after(base, reason)
    brought: dict[str, None] = {}
    for each, checkpoint in sorted(family, key=lambda pair: pair[1].place):
        if checkpoint.name not in brought and (base is None or checkpoint.place > base.place):
            store.bring_back(each)
            brought[checkpoint.name] = None
    return TakenBack(tuple(brought), left)


def _where_they_part(
    present: tuple[Checkpoint, ...], family: list[Checkpoint], target: Checkpoint
) -> Checkpoint | None:
    """Return the newest checkpoint in place that the line of `target` follows from, None if there is none."""
    # Another line may have a checkpoint of the same name. That was made later, in a later attempt.
    own = {each.name for each in family}
    attempts = {
        each.manifest.parent: each.manifest.attempt for each in family if each.manifest.parent not in own
    }
    first = min(each.place for each in family)
    older = [each for each in present if each.place < target.place]
    ancestors = [
        each
        for each in older
        if each.manifest.lineage == target.manifest.lineage
        or each.manifest.attempt <= attempts.get(each.name, 0)
    ]
    before = ancestors or [each for each in older if each.place < first]
    return max(before, key=lambda each: each.place, default=None)


def _read(aside: Aside) -> Checkpoint:
    name = CheckpointName.parse(aside.name)
    if name is None:
        raise UserError(f"{aside.path.name} is not named like a checkpoint")
    return read_checkpoint(aside.path, name=name)
