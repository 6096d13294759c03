"""Logged values of a Transformers `Trainer` that measure this machine: kept apart from the state. Pure."""

from __future__ import annotations

from typing import Any, Final

MEASURED_ENDS: Final = ("_runtime", "_per_second")
"""Ends of the names of such values."""

Found = list[tuple[list[str | int], Any]]
"""Paths of values, and the values."""


def apart(tree: Any) -> tuple[Any, Found]:
    """Return a tree without its measured values, and these with their paths.

    Args:
        tree: What JSON can hold, with texts as keys.
    """
    found: Found = []
    return _rest(tree, [], found), found


def together(tree: Any, found: Found) -> Any:
    """Put measured values back into the tree that `apart` has left, and return it."""
    for path, value in found:
        place = tree
        for each in path[:-1]:
            place = place[each]
        place[path[-1]] = value
    return tree


def _rest(tree: Any, path: list[str | int], found: Found) -> Any:
    if isinstance(tree, dict):
        rest = {}
        for name, value in tree.items():
            if str(name).endswith(MEASURED_ENDS) and isinstance(value, int | float):
                found.append(([*path, name], value))
            else:
                rest[name] = _rest(value, [*path, name], found)
        return rest
    if isinstance(tree, list | tuple):
        return [_rest(each, [*path, number], found) for number, each in enumerate(tree)]
    return tree
