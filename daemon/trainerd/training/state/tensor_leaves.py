"""The tensors in a value of the script's: in containers, and as arrays of NumPy."""

from __future__ import annotations

import itertools
import sys
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAVES_MAX: Final = 4096
_DEPTH_MAX: Final = 6
_CONTAINERS: Final = frozenset({dict, list, tuple, OrderedDict, defaultdict})
"""Others may do anything when they are gone through: mappings of transformers import each of their models."""


def leaves_of(value: Any) -> list[torch.Tensor]:
    """Return the tensors that a value is or holds in containers; arrays as tensors of the same memory."""
    return list(itertools.islice(_leaves_in(value, 0), _LEAVES_MAX))


def _leaves_in(value: Any, depth: int) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif (array := _array(value)) is not None:
        yield array
    elif type(value) in _CONTAINERS and len(value) <= _LEAVES_MAX and depth < _DEPTH_MAX:
        for each in value if isinstance(value, list | tuple) else value.values():
            yield from _leaves_in(each, depth + 1)


def _array(value: Any) -> torch.Tensor | None:
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or value.dtype.kind != "f":
        return None
    if not value.dtype.isnative or value.dtype.itemsize not in {2, 4, 8} or not value.flags.writeable:
        return None
    try:
        return torch.from_numpy(value)
    except (TypeError, ValueError):
        return None
