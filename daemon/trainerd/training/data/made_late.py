"""Parts of a loader that the script makes within its loop over epochs, at a resume between two epochs.

One that is made for each epoch begins afresh in a run left alone; one that is made once, late, goes on from
epoch to epoch. Two passes tell which it is, and a checkpoint holds it. After a single one, it is taken to be
made for each epoch, and the resume says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.verdict import Reason
from trainerd.training.data.root_identity import root_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trainerd.training.data.earlier_parts import EarlierParts

_REMADE: Final = "remade"
"""Key of what is known in the tree of a source: by name, whether another part was made for the next pass."""


class PartsMadeLate:
    """Those parts of one loader that were made since the first epoch began.

    Args:
        roots: What the loader consists of, by name.
        parts: Of all loaders of the run.
        suspect: Takes in a part of which it is not known whether one is made for each epoch.
    """

    def __init__(
        self, roots: Mapping[str, Any], parts: EarlierParts, suspect: Callable[[Reason], None]
    ) -> None:
        self._roots = {name: root for name, root in roots.items() if root is not None}
        self._parts = parts
        self._suspect = suspect
        self._remade: dict[str, bool] = {}

    def begin(self, saved: Mapping[str, Any], done: int, *, changed: set[str]) -> set[str]:
        """Return the names of the parts that begin afresh, though the former ones had changed.

        Args:
            saved: What the source had saved.
            done: How many batches of the pass are done.
            changed: Names of the parts of which it has saved something.
        """
        known = saved.get(_REMADE, {})
        new = [name for name, root in self._roots.items() if name in changed and self._parts.is_new(root)]
        self._remade = {name: known[name] for name in new if name in known}
        if done:
            return set()
        for name in new:
            if name not in known:
                self._suspect(_reason(type(self._roots[name])))
                self._remade[name] = True
        return {name for name in new if self._remade[name]}

    def pass_begins(self, place: tuple[int, ...]) -> None:
        """Note which parts a pass that trains has."""
        for name, root in self._roots.items():
            if self._parts.is_new(root):
                is_another = self._parts.is_another(place, name, root)
                if is_another is not None:
                    self._remade[name] = is_another

    def saved(self, *, changed: set[str]) -> dict[str, Any]:
        """Return what a checkpoint must hold of the parts that changed, as a tree; empty if nothing."""
        known = {name: self._remade[name] for name in sorted(changed & self._remade.keys())}
        return {_REMADE: known} if known else {}


def roots_of(*trees: Mapping[str, Any]) -> set[str]:
    """Return the names of the parts of which the trees of a memory hold something that changed."""
    keys = ("attributes", "generators", "changed")
    return {root_of(path) for tree in trees for key in keys for path in tree.get(key, ())}


def without_roots(tree: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """Return the tree of a memory without some parts; empty if no change is left."""
    if not names:
        return dict(tree)
    left = {key: _without(part, names) for key, part in tree.items()}
    return left if roots_of(left) or left.get("unsaved") else {}


def _without(part: Any, names: set[str]) -> Any:
    if isinstance(part, dict):
        return {path: value for path, value in part.items() if root_of(path) not in names}
    return [path for path in part if root_of(path) not in names]


def _reason(kind: type) -> Reason:
    name = kind.__qualname__
    return Reason(
        "made-in-epoch",
        name,
        "is made within the loop over epochs, and begins afresh: if the run keeps it from one epoch to the "
        "next, it would have gone on",
        f"make the {name} before the loop over epochs",
    )
