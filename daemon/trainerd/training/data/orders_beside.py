"""Lists and arrays that training puts into another order in place, and that are in no checkpoint.

``random.shuffle(order)`` at the top of each epoch begins from the order that the epoch before has left. What
the source of the script shows of that is found there; this finds what functions of other files do.
"""

from __future__ import annotations

import contextlib
import operator
import sys
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
import xxhash
from torch.utils.data import DataLoader, Dataset, Sampler

from trainerd.contract.verdict import Reason
from trainerd.training.data.objects_beside import identities_below
from trainerd.training.state.audit_coverage import memory_of
from trainerd.training.state.live_objects import live_instances

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainerd.training.state.caller_names import CallerNames

_ITEMS_MIN: Final = 3
_ITEMS_MAX: Final = 1 << 20
"""Items of all lists together that are watched."""
_BYTES_MAX: Final = 64 << 20
"""Bytes of all arrays together that are watched: a digest of them takes some milliseconds."""
_DEPTH_MAX: Final = 3


@dataclass(frozen=True, eq=False)
class _WatchedOrder:
    """A list or an array, what the script calls it and where, and the order that it had."""

    value: Any
    expression: str
    where: str
    order: _ListOrder | _ArrayOrder


class _ListOrder:
    """The order of the items of a list. What it refers to weakly is not kept alive: it may be large."""

    def __init__(self, value: list[Any]) -> None:
        self._items = [_reference(each) for each in value]

    def is_changed_in(self, value: list[Any]) -> bool:
        """Tell whether a list has the same items in another order."""
        if len(value) != len(self._items):
            return False
        items = [each() if isinstance(each, weakref.ref) else each for each in self._items]
        if all(map(operator.is_, value, items)):
            return False
        return Counter(map(id, value)) == Counter(map(id, items))


def _reference(item: Any) -> Any:
    """Return a weak reference, or the item itself if there is none to it: its identity must not pass on."""
    try:
        return weakref.ref(item)
    except TypeError:
        return item


class _ArrayOrder:
    """The order of the values of an array or a tensor in host memory."""

    def __init__(self, value: Any) -> None:
        self._digest = _digest(value)
        self._sum = _sum(value)

    def is_changed_in(self, value: Any) -> bool:
        """Tell whether an array has the same values in another order."""
        return _digest(value) != self._digest and _sum(value) == self._sum


class OrdersBeside:
    """Watches the lists, arrays and tensors that are variables of the script.

    Args:
        names: Names of the script's code, before the first epoch or step.
    """

    def __init__(self, names: CallerNames) -> None:
        self._session = names.session
        self._watched: list[_WatchedOrder] = []
        items = size = 0
        for known in names:
            value: Any = known.value
            if not known.expression.isidentifier():
                continue  # those of objects are found with the objects
            if type(value) is list and _ITEMS_MIN <= len(value) <= _ITEMS_MAX - items:
                items += len(value)
                self._watched.append(_WatchedOrder(value, known.expression, known.where, _ListOrder(value)))
            elif _is_watched_array(value) and value.nbytes <= _BYTES_MAX - size:
                size += value.nbytes
                self._watched.append(_WatchedOrder(value, known.expression, known.where, _ArrayOrder(value)))
        if self._watched:
            kept = _kept_by_loaders()  # not by those that are made for an epoch
            self._watched = [each for each in self._watched if id(each.value) not in kept]

    def reasons(self, is_kept: Callable[[Any], bool]) -> Iterator[tuple[str, Reason]]:
        """Yield each one whose order has changed since it was first seen, once: its name, and the reason.

        Args:
            is_kept: Tells whether a checkpoint holds an object.
        """
        changed = [each for each in self._watched if each.order.is_changed_in(each.value)]
        self._watched = [each for each in self._watched if each not in changed]
        yield from ((each.expression, self._reason(each)) for each in changed if not is_kept(each.value))

    def _reason(self, watched: _WatchedOrder) -> Reason:
        name = watched.expression
        return Reason(
            "untracked-order",
            watched.where,
            f"training puts {name} ({type(watched.value).__name__}) into another order in place, and it is "
            "in no checkpoint: a resume begins with the order that the program gives it",
            f'{name} = {self._session}.value("{name}", {name}).value before the loop, or make {name} again '
            "at the top of each epoch",
        )


def _is_watched_array(value: Any) -> bool:
    if type(value) is torch.Tensor:
        is_plain = value.device.type == "cpu" and value.layout is torch.strided and not value.requires_grad
        return (
            is_plain
            and value.is_contiguous()
            and value.numel() >= _ITEMS_MIN
            and memory_of(value) is not None
        )
    numpy = sys.modules.get("numpy")
    return (
        numpy is not None
        and type(value) is numpy.ndarray
        and not value.dtype.hasobject
        and bool(value.flags.c_contiguous and value.flags.writeable)
        and value.size >= _ITEMS_MIN
    )


def _bytes_of(value: Any) -> torch.Tensor:
    tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(value.reshape(-1).view("uint8"))
    return tensor.detach().reshape(-1).view(torch.uint8)


def _digest(value: Any) -> int:
    return xxhash.xxh3_64_intdigest(_bytes_of(value).numpy().data)


def _sum(value: Any) -> int:
    """Return a number that does not depend on the order of the values."""
    data = _bytes_of(value)
    for kind in (torch.int64, torch.int32, torch.int16):
        if data.numel() % kind.itemsize == 0 and value.itemsize % kind.itemsize == 0:
            return int(data.view(kind).sum(dtype=torch.int64))
    return int(data.sum(dtype=torch.int64))


def _kept_by_loaders() -> set[int]:
    """Return the identities of what a session keeps with samplers and datasets."""
    loading = live_instances(
        lambda kind: (
            issubclass(kind, Dataset | Sampler | DataLoader) and not kind.__module__.startswith("trainerd.")
        )
    )
    return identities_below(loading, _parts, depth=_DEPTH_MAX)


def _parts(value: Any) -> list[Any]:
    with contextlib.suppress(TypeError):
        parts = dict(vars(value))
        if isinstance(value, DataLoader | Sampler):  # of a list that is the dataset, nothing is kept
            parts.pop("dataset", None)
            parts.pop("data_source", None)
        return list(parts.values())
    return []
