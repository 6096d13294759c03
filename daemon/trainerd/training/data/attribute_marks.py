"""Digests of attribute values, bounded in what they cost.

A value that a checkpoint can hold is marked by its contents, any other one by its structure: the kinds of its
parts, their lengths, and a sample of long ones. Both are the same in every process.
"""

from __future__ import annotations

import functools
import itertools
import sys
import types
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import torch
import xxhash

from trainerd.training.data.loader_memory import content_mark, is_plain
from trainerd.training.state.generators import is_generator

BYTES_MAX: Final = 16 << 20
"""A value that is larger is data: it is sampled, and in no checkpoint."""
ABSENT: Final = ""
NONE: Final = "=None"
CONTENT_NODES_MAX: Final = 4096
"""A list or dict with more parts, theirs included, is sampled: to go through 100,000 takes 0.1 s."""
SMALL_NODES_MAX: Final = 1024
SMALL_BYTES_MAX: Final = 256 << 10
"""What reading a batch changes is saved up to this size: a counter, a window of samples, not a cache."""
_NODES_MAX: Final = 512
_DEPTH_MAX: Final = 5
_PARTS_MAX: Final = 64
_SAMPLE: Final = 1024
_SCALARS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_CONTAINERS: Final = (dict, list, tuple, set, deque)
_OPENED: Final = ("torch", "torchvision", "torchaudio", "functools")
"""Libraries whose objects are looked into: their transforms have plain attributes."""


def mark_of(value: Any) -> str:
    """Return the mark of a value."""
    if value is None:
        return NONE
    is_small = _estimated_nodes(value) <= CONTENT_NODES_MAX and _estimated_bytes(value) <= BYTES_MAX
    if is_small and (type(value) in _SCALARS or is_plain(value)):
        digest = content_mark(value)
        if digest:
            return f"={digest}"
    parts = "|".join(itertools.islice(_structure(value, 0, {}), _NODES_MAX))
    return f"~{xxhash.xxh3_64_hexdigest(parts.encode(errors='replace'))}"


def is_small(value: Any) -> bool:
    """Tell whether a value can be saved at every save, though each batch that is read may change it."""
    if type(value) in _SCALARS:
        return _estimated_bytes(value) <= SMALL_BYTES_MAX
    is_short = is_plain(value) and _estimated_nodes(value) <= SMALL_NODES_MAX
    return is_short and _estimated_bytes(value) <= SMALL_BYTES_MAX


def can_be_saved(mark: str) -> bool:
    """Tell whether a value with this mark is one that a checkpoint can hold."""
    return mark.startswith("=")


def _estimated_bytes(value: Any, depth: int = 0) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, _CONTAINERS):
        parts = value.values() if isinstance(value, dict) else value
        some = [_estimated_bytes(each, depth + 1) for each in _some(parts, 16)] if depth < 3 else []
        return len(value) * (32 + (sum(some) // len(some) if some else 0))
    return 32


def _estimated_nodes(value: Any, depth: int = 0) -> int:
    if not isinstance(value, (*_CONTAINERS, frozenset)) or depth > _DEPTH_MAX:
        return 1
    parts = value.values() if isinstance(value, dict) else value
    some = [_estimated_nodes(each, depth + 1) for each in _some(parts, 16)] or [0]
    return 1 + len(value) * max(1, sum(some) // len(some))


def _some(values: Any, count: int) -> list[Any]:
    """Return a sample of values, spread over a sequence, or the first ones of anything else."""
    if isinstance(values, list | tuple):
        return list(values[:: max(1, len(values) // count)][:count])
    return list(itertools.islice(values, count))


def _structure(value: Any, depth: int, seen: dict[int, Any]) -> Iterator[str]:
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}"
    if kind in _SCALARS:
        yield repr(value)[:_SAMPLE]
        return
    if isinstance(value, type):
        yield f"{value.__module__}.{value.__qualname__}"
        return
    if is_generator(value) or id(value) in seen or depth > _DEPTH_MAX:
        return
    seen[id(value)] = value  # kept, or its id could pass on to another
    if isinstance(value, torch.Tensor) or kind.__name__ == "ndarray":
        yield _sample_of(value)
    elif kind.__module__ == "itertools":
        yield repr(value)[:_SAMPLE]  # of a count, where it is
    elif isinstance(value, (*_CONTAINERS, frozenset)):
        yield str(len(value))
        if not isinstance(value, set | frozenset):
            parts = value.items() if isinstance(value, dict) else value
            for each in _some(parts, _PARTS_MAX):
                yield from _structure(each, depth + 1, seen)
    elif isinstance(value, types.FunctionType):
        yield value.__qualname__
        cells = [_content(cell) for cell in value.__closure__ or ()]
        yield from _structure([value.__defaults__, cells], depth + 1, seen)
    elif isinstance(value, types.MethodType):
        yield value.__name__
        yield from _structure(value.__self__, depth + 1, seen)
    elif isinstance(value, functools.partial):
        yield from _structure([value.func, value.args, value.keywords], depth + 1, seen)
    elif _is_looked_into(kind.__module__):
        for name, each in sorted(getattr(value, "__dict__", {}).items()):
            yield name
            yield from _structure(each, depth + 1, seen)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _is_looked_into(module: str) -> bool:
    top = module.partition(".")[0]
    return top in _OPENED or top == "__main__" or top not in sys.stdlib_module_names


def _sample_of(value: Any) -> str:
    shape = f"{value.dtype}{tuple(value.shape)}"
    if isinstance(value, torch.Tensor) and (value.device.type != "cpu" or value.layout != torch.strided):
        return shape
    try:
        flat = value.reshape(-1) if value.size else value
        flat = value.detach().reshape(-1) if isinstance(value, torch.Tensor) else flat
        some = flat[:: max(1, len(flat) // _SAMPLE)][:_SAMPLE]
        return f"{shape}{xxhash.xxh3_64_hexdigest(str(some.tolist()).encode())}"
    except (RuntimeError, ValueError, TypeError):
        return shape
