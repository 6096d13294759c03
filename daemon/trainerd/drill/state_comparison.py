"""The first difference between two checkpoints of the same boundary, made by two runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trainerd.drill.folder_names import without_folder
from trainerd.errors import CorruptError
from trainerd.training.state.rank_files import read_verified
from trainerd.training.state.tree_difference import UNCOMPARED, first_difference

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.checkpoint.committed import Checkpoint
    from trainerd.training.engine.row_comparison import Patterns
    from trainerd.training.state.restore import StateTree


def checkpoint_difference(
    then: Checkpoint, now: Checkpoint, *, uncompared: Patterns, folders: tuple[Path, Path]
) -> tuple[str, str] | None:
    """Return path and detail of the first difference in the whole state, None if there is none.

    A checkpoint that does not verify or cannot be read is a difference.

    Args:
        then: Checkpoint of the undisturbed run.
        now: Checkpoint of the run to compare with it.
        uncompared: Paths to leave out.
        folders: Folder of each run. A text in the state that names a place in one is compared without it.
    """
    try:
        return _difference(then, now, uncompared, folders)
    except (CorruptError, OSError) as error:
        return "", f"a checkpoint cannot be read: {error}"


def _difference(
    then: Checkpoint, now: Checkpoint, uncompared: Patterns, folders: tuple[Path, Path]
) -> tuple[str, str] | None:
    ranks = then.manifest.world_size
    # With another number of ranks the others have generators of their own: the state is that of rank 0.
    for rank in range(ranks if now.manifest.world_size == ranks else 1):
        one, other = (
            _compared_tree(read_verified(each, rank), folder)
            for each, folder in zip((then, now), folders, strict=True)
        )
        found = first_difference(one, other, "", is_left_out=uncompared.match)
        if found is not None:
            prefix = f"rank {rank}: " if ranks > 1 else ""
            return f"{prefix}{found.path}", found.detail
    return None


def _compared_tree(tree: StateTree, folder: Path) -> dict[str, Any]:
    own = tree.extra.get("session", {})
    found: dict[str, Any] = without_folder(
        {
            **tree.objects,
            "module_changes": tree.module_changes,
            **{name: value for name, value in own.items() if name not in UNCOMPARED},
        },
        {str(folder), os.path.realpath(folder)},
    )
    return found
