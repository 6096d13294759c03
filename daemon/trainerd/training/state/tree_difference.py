"""The first difference between two trees of state, bit for bit."""

from __future__ import annotations

import ctypes
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from trainerd.checkpoint.tree import path_of
from trainerd.contract.counted import counted
from trainerd.training.state.shards import Shard

_SHOWN_MAX: Final = 60

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int


UNCOMPARED: Final = frozenset(
    {"position", "sources", "sources_form", "former_sources", "source_owners", "seed", "not_kept"}
)
"""Of the session's own state: what tells no difference. What a loader gives is compared by the samples."""


@dataclass(frozen=True)
class TreeDifference:
    """One difference.

    Attributes:
        path: Where: ``model.fc.weight``.
        detail: What: ``[0, 3]: 0.5 became 0.25 (12 of 32 values differ)``.
    """

    path: str
    detail: str


def first_difference(
    then: Any, now: Any, path: str, *, is_left_out: Callable[[str], bool] = lambda _: False
) -> TreeDifference | None:
    """Return the first difference between two trees of what a checkpoint can hold; None if they are equal.

    Args:
        then: The former tree.
        now: The present tree.
        path: Path of both.
        is_left_out: Tells whether what has that path is not compared.
    """
    return _Comparison(is_left_out).difference(then, now, path)


class _Comparison:
    def __init__(self, is_left_out: Callable[[str], bool]) -> None:
        self._is_left_out = is_left_out

    def difference(self, then: Any, now: Any, path: str) -> TreeDifference | None:
        if self._is_left_out(path):
            return None
        if isinstance(then, torch.Tensor) or isinstance(now, torch.Tensor):
            return _tensor_difference(then, now, path)
        if isinstance(then, Mapping) and isinstance(now, Mapping):
            return self._of_mappings(then, now, path)
        if type(then) is not type(now):
            return TreeDifference(path, f"{_shown(then)} became {_shown(now)}")
        if isinstance(then, Shard):
            return _shard_difference(then, now, path)
        if isinstance(then, list | tuple | deque):
            return self._of_sequences(list(then), list(now), path)
        return _leaf_difference(then, now, path)

    def _of_mappings(
        self, then: Mapping[Any, Any], now: Mapping[Any, Any], path: str
    ) -> TreeDifference | None:
        for key, value in then.items():
            here = path_of(path, key) if path else str(key)
            if key not in now:
                if not self._is_left_out(here):
                    return TreeDifference(here, "it is missing")
            elif (found := self.difference(value, now[key], here)) is not None:
                return found
        new = [path_of(path, key) if path else str(key) for key in now if key not in then]
        extra = next((each for each in new if not self._is_left_out(each)), None)
        return None if extra is None else TreeDifference(extra, "it is new")

    def _of_sequences(self, then: list[Any], now: list[Any], path: str) -> TreeDifference | None:
        if len(then) != len(now):
            return TreeDifference(path, f"{counted(len(then), 'entry', 'entries')} became {len(now)}")
        for index, (one, other) in enumerate(zip(then, now, strict=True)):
            if (found := self.difference(one, other, f"{path}[{index}]")) is not None:
                return found
        return None


def _leaf_difference(then: Any, now: Any, path: str) -> TreeDifference | None:
    if hasattr(then, "tobytes") and hasattr(then, "dtype"):  # of NumPy, which need not be there
        is_equal = then.dtype == now.dtype and then.shape == now.shape and then.tobytes() == now.tobytes()
    else:
        is_equal = _is_same_float(then, now) if isinstance(then, float) else bool(then == now)
    return None if is_equal else TreeDifference(path, f"{_shown(then)} became {_shown(now)}")


def _shard_difference(then: Shard, now: Shard, path: str) -> TreeDifference | None:
    places = [f"the part at {list(each.offset)} of {list(each.shape)}" for each in (then, now)]
    if places[0] != places[1]:
        return TreeDifference(path, f"{places[0]} became {places[1]}")
    return _tensor_difference(then.part, now.part, path)


def _tensor_difference(then: Any, now: Any, path: str) -> TreeDifference | None:
    if not isinstance(then, torch.Tensor) or not isinstance(now, torch.Tensor):
        return TreeDifference(path, f"{_shown(then)} became {_shown(now)}")
    if then.dtype != now.dtype or then.shape != now.shape or then.layout != now.layout:
        return TreeDifference(path, f"{_kind(then)} became {_kind(now)}")
    if then.layout != torch.strided or then.is_quantized:
        return None if _parts_are_equal(then, now) else TreeDifference(path, "the tensor differs")
    one, other = _plain(then), _plain(now)
    if _have_equal_bytes(one, other):
        return None
    differs = (_bytes(one) != _bytes(other)).any(dim=-1)
    first = int(differs.nonzero()[0])
    count = int(differs.sum())
    index = (
        []
        if then.dim() == 0
        else [int(each) for each in torch.unravel_index(torch.tensor(first), then.shape)]
    )
    values = (_shown(each.reshape(-1)[first].item()) for each in (one, other))
    place = f"{index}: " if index else ""
    of = f"{count} of {counted(then.numel(), 'value differs', 'values differ')}"
    return TreeDifference(path, f"{place}{' became '.join(values)} ({of})")


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return (
        tensor.reshape(-1).view(torch.uint8).reshape(-1, tensor.element_size())
        if tensor.numel()
        else (torch.empty((0, 1), dtype=torch.uint8))
    )


def _have_equal_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    # `torch.equal` compares one value at a time, and bytes have to be compared: NaN is not equal to itself.
    count = one.numel() * one.element_size()
    return count == 0 or _memcmp(one.data_ptr(), other.data_ptr(), count) == 0


def _parts_are_equal(then: torch.Tensor, now: torch.Tensor) -> bool:
    if then.is_quantized:
        return bool(torch.equal(then.detach().cpu(), now.detach().cpu()))
    return bool(torch.equal(then.detach().cpu().to_dense(), now.detach().cpu().to_dense()))


def _is_same_float(then: float, now: float) -> bool:
    if math.isnan(then):
        return math.isnan(now)
    return then == now and math.copysign(1, then) == math.copysign(1, now)


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _shown(value: Any) -> str:
    text = _kind(value) if isinstance(value, torch.Tensor) else repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…"
