"""Which parts of loaders there were before the first epoch, and which one each pass over data had."""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset, Sampler

from trainerd.training.data.found_generators import is_of_user
from trainerd.training.data.root_identity import kind_of
from trainerd.training.state.live_objects import live_instances

if TYPE_CHECKING:
    from collections.abc import Collection


class EarlierParts:
    """The parts of all loaders of a run."""

    def __init__(self) -> None:
        self._kinds: frozenset[str] = frozenset()
        self._before: dict[int, weakref.ref[Any]] | None = None
        self._of_passes: dict[tuple[tuple[int, ...], str], weakref.ref[Any]] = {}

    def look_around(self, kinds: Collection[str]) -> list[Any]:
        """Return what there is before an epoch; what there is before the first one is noted.

        Args:
            kinds: Full names of classes that count beside those of `may_make_batches`.
        """
        self._kinds = frozenset(kinds)
        found = live_instances(self._is_noted)
        if self._before is None:
            self._before = {id(each): weakref.ref(each) for each in found if _has_weak_references(each)}
        return found

    def _is_noted(self, kind: type) -> bool:
        return issubclass(kind, Dataset | Sampler) or may_make_batches(kind) or kind_of(kind) in self._kinds

    def is_new(self, root: Any) -> bool:
        """Tell whether a part of a loader was made since the first epoch began; False if not known."""
        if self._before is None or not _has_weak_references(root) or not self._is_noted(type(root)):
            return False
        return not self.was_there(root)

    def was_there(self, root: Any) -> bool:
        """Tell whether a part of a loader is known to have been there before the first epoch."""
        known = (self._before or {}).get(id(root))
        return known is not None and known() is root

    def is_another(self, place: tuple[int, ...], name: str, root: Any) -> bool | None:
        """Tell whether the last pass at a place of the epoch had another object; None if there was none."""
        former = self._of_passes.get((place, name))
        self._of_passes[place, name] = weakref.ref(root)
        return former() is not root if former is not None else None


def may_make_batches(kind: type) -> bool:
    """Tell whether objects of a class may be iterated over for batches, or make them.

    Of the classes of libraries, these are only such as know their position.
    """
    # It is asked of thousands of classes: what is quick to tell comes first.
    if hasattr(kind, "state_dict") and hasattr(kind, "load_state_dict") and hasattr(kind, "__iter__"):
        return not issubclass(kind, torch.nn.Module)
    name = kind.__module__
    if not isinstance(name, str) or not _has_own_source(name) or issubclass(kind, type | torch.nn.Module):
        return False
    # A class is asked for what its instances have: its metaclass has a `__call__` always.
    return any("__iter__" in vars(each) or "__call__" in vars(each) for each in kind.__mro__)


def _has_own_source(name: str) -> bool:
    """Tell whether a module is the user's own code and not compiled, as the functions of Cython are."""
    has_file = getattr(sys.modules.get(name), "__file__", None) is not None
    return name == "__main__" or (has_file and is_of_user(name))


def _has_weak_references(value: Any) -> bool:
    return type(value).__weakrefoffset__ != 0
