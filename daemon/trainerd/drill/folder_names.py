"""State of a run without the name of its folder: runs of a drill lie in folders of their own. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection

PLACE: Final = "<run>"
"""What stands for the folder of a run."""


def without_folder(tree: Any, names: Collection[str]) -> Any:
    """Return a tree of state in which `PLACE` stands for a folder, wherever a text or a key names it.

    Args:
        tree: What a checkpoint holds.
        names: Absolute names of the folder: the one that was given, and the one without links.
    """
    if isinstance(tree, str):
        for name in sorted(names, key=len, reverse=True):
            tree = tree.replace(name, PLACE)
        return tree
    if isinstance(tree, Mapping):
        return {without_folder(key, names): without_folder(value, names) for key, value in tree.items()}
    if isinstance(tree, list | tuple | deque):
        entries = [without_folder(each, names) for each in tree]
        return tuple(entries) if isinstance(tree, tuple) else type(tree)(entries)
    return tree
