"""Restoring a plain value into the objects that the script has, so that all names it has for them see it.

A list that is appended to, a tensor that is added to, and everything nested in them, is filled again where it
is. An object that the script had replaced is not: the former object may serve for something else,
such as a first hidden state to which each epoch returns.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.training.state.copied_state import copied_state
from trainerd.training.state.tensor_dtypes import dense_stride

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

Path = tuple[Any, ...]
"""Keys and indices that lead from a value to something nested in it."""

_DICTS: Final = frozenset({dict, OrderedDict, defaultdict, Counter})
_SEQUENCES: Final = frozenset({list, deque})
_SCALARS: Final = frozenset({int, float, bool, str, bytes, complex, type(None)})
_DEPTH_MAX: Final = 64


class Mark:
    """Which objects a value consists of at one moment: what can be changed in place, by its path.

    Args:
        value: The value.
        replaced: Paths of objects that count as replaced already.
    """

    def __init__(self, value: Any, replaced: Collection[Path] = ()) -> None:
        self._objects = {
            path: _reference(each)
            for path, each in changeable_in(value)
            if not any(path[: len(above)] == above for above in replaced)
        }

    def replaced(self, value: Any) -> list[Path]:
        """Return the paths of what is another object now; what is nested in one of them is not listed."""
        found: list[Path] = []
        for path, each in changeable_in(value):
            reference = self._objects.get(path)
            is_below = any(path[: len(above)] == above for above in found)
            if not is_below and (reference is None or reference() is not each):
                found.append(path)
        return found


def changeable_in(
    value: Any, path: Path = (), seen: frozenset[int] = frozenset()
) -> Iterator[tuple[Path, Any]]:
    """Yield what can be changed in place in a value, itself included, each with its path."""
    kind = type(value)
    if kind in _DICTS or kind in _SEQUENCES or kind is tuple:
        if id(value) in seen or len(path) > _DEPTH_MAX:
            return
        if kind is not tuple:
            yield path, value
        items = value.items() if kind in _DICTS else enumerate(value)
        for key, item in list(items):
            if type(item) not in _SCALARS:
                yield from changeable_in(item, (*path, key), seen | {id(value)})
    elif kind in {set, bytearray} or isinstance(value, torch.Tensor) or _is_array(value):
        yield path, value


class InPlaceRestore:
    """One restoring of several values: every live object takes one saved one at most.

    What was one object in several places when it was saved is one again.
    """

    def __init__(self) -> None:
        self._replaced: frozenset[Path] = frozenset()
        self._taken: dict[int, tuple[Any, Any]] = {}
        self._made: dict[int, Any] = {}
        self._copies: dict[int, Any] = {}
        self._sources: list[Any] = []  # kept, or their identities could pass to others

    def restored(self, live: Any, saved: Any, replaced: Collection[Path] = ()) -> Any:
        """Return a saved value, in the objects of `live` where their types allow it and none was replaced.

        Args:
            live: What the script has. It is changed.
            saved: What a checkpoint holds. It is copied, not used.
            replaced: Paths of the objects that the script had replaced when it was saved.
        """
        self._replaced = frozenset(map(tuple, replaced))
        self._sources.append(saved)
        return self._fill(live, saved, ())

    def _fill(self, live: Any, saved: Any, path: Path) -> Any:
        if type(saved) in _SCALARS:
            return saved
        if id(saved) in self._made:
            return self._made[id(saved)]
        if path in self._replaced:
            return copied_state(saved, self._copies)
        if type(saved) is tuple and type(live) is tuple:
            before = [*live, *[None] * len(saved)]
            items = tuple(
                [self._fill(before[index], item, (*path, index)) for index, item in enumerate(saved)]
            )
            is_same = len(items) == len(live) and all(a is b for a, b in zip(items, live, strict=True))
            return live if is_same else items
        if not _can_take(live, saved):
            return copied_state(saved, self._copies)
        if id(live) in self._taken:
            return live if is_equal(self._taken[id(live)][1], saved) else copied_state(saved, self._copies)
        self._taken[id(live)] = (live, saved)
        self._put(live, saved, path)
        if isinstance(saved, torch.Tensor):
            self._made[id(saved)] = live
        return live

    def _put(self, live: Any, saved: Any, path: Path) -> None:
        kind = type(saved)
        if kind in _DICTS:
            items = {key: self._fill(live.get(key), item, (*path, key)) for key, item in saved.items()}
            live.clear()
            for key, item in items.items():  # not by update, with which a Counter adds
                live[key] = item
            if kind is defaultdict:
                live.default_factory = saved.default_factory
        elif kind in _SEQUENCES:
            before = [*live, *[None] * len(saved)]
            filled = [self._fill(before[index], item, (*path, index)) for index, item in enumerate(saved)]
            live.clear()
            live.extend(filled)
        elif kind is set:
            live.clear()
            live.update(saved)
        elif kind is bytearray:
            live[:] = saved
        elif isinstance(saved, torch.Tensor):
            with torch.no_grad():
                live.copy_(saved)
            live.requires_grad_(saved.requires_grad)
        else:
            live[...] = saved


def _can_take(live: Any, saved: Any) -> bool:
    """Return whether a live object can become a saved one in place."""
    kind = type(saved)
    if type(live) is not kind:
        return False
    if kind is deque:
        return bool(live.maxlen == saved.maxlen)
    if isinstance(saved, torch.Tensor):
        return (
            live.shape == saved.shape
            and live.dtype == saved.dtype
            and live.layout is torch.strided is saved.layout
            and live.is_leaf
            and not live.is_inference()
            and not live.is_meta
            and not live.is_quantized
            and not live.is_conj()
            and not live.is_neg()
            and not _overlaps_itself(live)
            and dense_stride(live) == dense_stride(saved)
        )
    if _is_array(saved):
        return bool(
            live.shape == saved.shape
            and live.dtype == saved.dtype
            and live.flags.writeable
            and live.flags.f_contiguous == saved.flags.f_contiguous
        )
    return kind in _DICTS or kind in _SEQUENCES or kind in {set, bytearray}


def _overlaps_itself(tensor: torch.Tensor) -> bool:
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and stride == 0 for size, stride in sizes)


def is_equal(one: Any, other: Any) -> bool:
    """Return whether two plain values are the same, tensors and all."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one is other or (
            one.shape == other.shape and one.dtype == other.dtype and bool(one.equal(other))
        )
    if _is_array(one):
        return bool(one.shape == other.shape and one.dtype == other.dtype and (one == other).all())
    if type(one) in _DICTS:
        return list(one) == list(other) and all(is_equal(one[key], other[key]) for key in one)
    if type(one) in _SEQUENCES or type(one) is tuple:
        return len(one) == len(other) and all(map(is_equal, one, other))
    return bool(one == other)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def _reference(value: Any) -> Any:
    """Return what gives the object while it lives; lists and dicts know no such reference and are kept."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value


def devices_in(value: Any) -> dict[str, list[Path]]:
    """Return the paths of the tensors that are not in host memory, by device."""
    found: dict[str, list[Path]] = {}
    for path, each in changeable_in(value):
        if isinstance(each, torch.Tensor) and each.device.type != "cpu":
            found.setdefault(str(each.device), []).append(path)
    return found


def on_devices(value: Any, devices: Mapping[str, Sequence[Sequence[Any]]]) -> Any:
    """Return a value with its tensors on the devices that `devices_in` told, as far as they are here.

    Where a device of that number is not here, the current one of its type takes its place, if there is one.
    """
    here = {name: _device_here(torch.device(name)) for name in devices}
    places = {
        tuple(path): device for name, paths in devices.items() if (device := here[name]) for path in paths
    }
    moved: dict[int, Any] = {}

    def put(each: Any, path: Path) -> Any:
        kind = type(each)
        if isinstance(each, torch.Tensor):
            device = places.get(path)
            if device is not None and id(each) not in moved:
                tensor = each.detach().to(device)
                moved[id(each)] = tensor.requires_grad_(each.requires_grad)
            return moved.get(id(each), each)
        if kind is defaultdict:
            return defaultdict(each.default_factory, {k: put(v, (*path, k)) for k, v in each.items()})
        if kind in _DICTS:
            return kind({key: put(item, (*path, key)) for key, item in each.items()})
        if kind is deque:
            return deque((put(item, (*path, index)) for index, item in enumerate(each)), each.maxlen)
        if kind in {list, tuple}:
            return kind(put(item, (*path, index)) for index, item in enumerate(each))
        return each

    return put(value, ()) if places else value


def _device_here(device: torch.device) -> torch.device | None:
    for candidate in (device, torch.device(device.type)):
        try:
            torch.empty(0, device=candidate)
        except (RuntimeError, AssertionError):
            continue
        return candidate
    return None
