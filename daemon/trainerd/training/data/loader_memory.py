"""What loading remembers from batch to batch and is in no ``state_dict``: generators and plain attributes.

A sampler whose weights follow the losses, a counter of epochs, a generator that the script draws from as
well: what has changed since the loader was first used is saved, and put back where its loop goes on.

Invariants:
    What did not change is configuration, and stays as the program has it.
    At the beginning of a loop, what the code before the loop has changed already in this attempt is left
    alone: that code runs again. Inside a loop, everything is put back.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
import xxhash
from torch.utils.data import Dataset

from trainerd.errors import UnsupportedValueError
from trainerd.training.data.found_generators import find_generators
from trainerd.training.state.generators import generator_state, is_generator, set_generator_state
from trainerd.training.state.tensors import TensorTable, copied_state, encode_state

ELEMENTS_MAX: Final = 1 << 17
"""A list or dict that is longer is data, and not looked at."""
_DEPTH_MAX: Final = 3
_SCALARS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_SKIPPED: Final = frozenset({"_iterator", "multiprocessing_context"})
_UNMARKED: Final = ""


@dataclass(frozen=True)
class Owner:
    """An object whose plain attributes are looked at.

    Attributes:
        path: Where it hangs.
        value: The object.
        takes_scalars_only: Whether only its numbers, flags and strings are looked at, as of a dataset.
    """

    path: str
    value: Any
    takes_scalars_only: bool


class LoaderMemory:
    """The generators and plain attributes of what a loader consists of.

    Args:
        roots: The objects below which generators are looked for, by name.
        owners: Names of those among them whose plain attributes count too.
    """

    def __init__(self, roots: Mapping[str, Any], owners: tuple[str, ...] = ()) -> None:
        self._roots = {name: value for name, value in roots.items() if value is not None}
        self._owners = [name for name in owners if name in self._roots]
        self.find()
        self._marks = {path: _mark(value) for path, value in self._values()}

    def find(self) -> None:
        """Look for generators again: one may have been replaced."""
        found = find_generators(**self._roots)
        self.generators, self.unseedable = found.by_path, found.unseedable

    def changes(self) -> dict[str, Any]:
        """Return what has changed since the beginning, as a tree for a checkpoint."""
        self.find()
        found: dict[str, Any] = {}
        for path, value in self._values():
            first = self._marks.get(path, _UNMARKED)
            if _mark(value) != first:
                state = generator_state(value) if is_generator(value) else copied_state(value)
                found[path] = {"value": state, "first": first}
        return found

    def put_back(self, changes: Mapping[str, Any], *, is_inside: bool) -> None:
        """Make the changes that `changes` returned, as far as the same objects are there.

        Args:
            changes: What it returned.
            is_inside: Whether the loop goes on in the middle.
        """
        self.find()
        owners = {owner.path: owner.value for owner in self._owning()}
        now = dict(self._values())
        for path, saved in changes.items():
            if not is_inside and _mark(now.get(path)) != saved["first"]:
                continue
            if path in self.generators:
                set_generator_state(self.generators[path], saved["value"])
                continue
            owner, _, name = path.rpartition(".")
            if owner in owners:
                _set(owners[owner], name, copied_state(saved["value"]))

    def _values(self) -> Iterator[tuple[str, Any]]:
        yield from self.generators.items()
        for owner in self._owning():
            for name, value in list(vars(owner.value).items()):
                path = f"{owner.path}.{name}"
                if path in self.generators or name in _SKIPPED:
                    continue
                if type(value) in _SCALARS or (not owner.takes_scalars_only and _is_plain(value)):
                    yield path, value

    def _owning(self) -> Iterator[Owner]:
        seen: set[int] = set()
        for name in self._owners:
            yield from _owners_below(name, self._roots[name], seen, 0)


def _owners_below(path: str, value: Any, seen: set[int], depth: int) -> Iterator[Owner]:
    if id(value) in seen or not hasattr(value, "__dict__") or isinstance(value, type | torch.nn.Module):
        return
    seen.add(id(value))
    is_dataset = isinstance(value, Dataset)
    yield Owner(path, value, is_dataset)
    if depth >= _DEPTH_MAX:
        return
    for name, each in list(vars(value).items()):
        if name not in _SKIPPED and isinstance(each, Dataset) == is_dataset and _is_of_loading(each):
            yield from _owners_below(f"{path}.{name}", each, seen, depth + 1)


def _is_of_loading(value: Any) -> bool:
    kind = type(value)
    return hasattr(kind, "__iter__") and kind.__module__ != "builtins" and not isinstance(value, torch.Tensor)


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind in {list, dict, tuple, set}:
        return len(value) <= ELEMENTS_MAX
    return kind is torch.Tensor or (
        kind.__module__ == "numpy" and kind.__name__ in {"ndarray", "float64", "int64"}
    )


def _mark(value: Any) -> str:
    """Return a digest of a value; an empty one if a checkpoint could not hold it."""
    if is_generator(value):
        value = generator_state(value)
    try:
        return xxhash.xxh3_64_hexdigest(marshal.dumps(value, 2))
    except ValueError:
        pass
    table = TensorTable(takes_shards=False)
    try:
        document = encode_state(value, table, root="value")
        digest = xxhash.xxh3_64(json.dumps(document).encode())
        for tensor in table.tensors.values():
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    except (UnsupportedValueError, RuntimeError, TypeError):
        return _UNMARKED
    return digest.hexdigest()


def _set(owner: Any, name: str, value: Any) -> None:
    """Set an attribute, in place if it can be: the script may hold the same list or tensor."""
    former = vars(owner).get(name)
    if type(former) is type(value):
        if isinstance(former, torch.Tensor) and former.shape == value.shape and former.dtype == value.dtype:
            with torch.no_grad():
                former.copy_(value)
            return
        if type(value).__name__ == "ndarray" and former.shape == value.shape and former.flags.writeable:
            former[...] = value
            return
        if isinstance(value, list):
            former[:] = value
            return
        if isinstance(value, dict | set):
            former.clear()
            former.update(value)
            return
    vars(owner)[name] = value  # not by setattr: a loader refuses some of its own names
