"""Digest of what a batch contains: tensors, arrays, numbers, texts, and containers of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

import torch
import xxhash

DEPTH_MAX: Final = 32

_PLAIN: Final = (bool, int, float, complex, str, bytes, bytearray, type(None))


class _UnknownContentError(Exception):
    """Something in the batch has no bytes that are the same in every process. Never leaves the module."""


def content_digest(batch: Any) -> str | None:
    """Return the digest of the contents of a batch; None if something in it has no stable form.

    Two batches with the same digest have the same values, dtypes, shapes and structure. Where they lie, on
    which device or in page-locked memory, makes no difference.
    """
    hasher = xxhash.xxh3_128()
    try:
        _fold(batch, hasher, 0)
    except Exception:  # noqa: BLE001 - a user's class may raise anything when it is looked into
        return None
    return f"xxh3-128:{hasher.hexdigest()}"


def _fold(value: Any, hasher: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise _UnknownContentError
    if isinstance(value, torch.Tensor):
        _fold_tensor(value, hasher)
    elif type(value) in _PLAIN:
        _tag(hasher, type(value).__name__, repr(value))
    elif hasattr(value, "dtype") and hasattr(value, "tobytes"):
        _fold_array(value, hasher)
    elif isinstance(value, Mapping):
        _tag(hasher, "mapping", str(len(value)))
        _fold_all((part for item in value.items() for part in item), hasher, depth)
    elif isinstance(value, AbstractSet):
        _tag(hasher, "set", str(len(value)))
        digests = [content_digest(each) for each in value]
        if None in digests:
            raise _UnknownContentError
        _fold_all(sorted(filter(None, digests)), hasher, depth)
    elif isinstance(value, list | tuple):
        _tag(hasher, "list", str(len(value)))
        _fold_all(value, hasher, depth)
    elif (
        hasattr(value, "tobytes") and hasattr(value, "mode") and hasattr(value, "size")
    ):  # an image of Pillow
        _tag(hasher, "image", f"{value.mode} {value.size}")
        hasher.update(value.tobytes())
    else:
        _fold_object(value, hasher, depth)


def _fold_object(value: Any, hasher: Any, depth: int) -> None:
    """Take in an object by its attributes: a dataclass, or any class of a user's."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        attributes = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    elif not isinstance(value, type) and not callable(value) and getattr(value, "__dict__", None):
        attributes = dict(vars(value))
    else:
        raise _UnknownContentError
    _tag(hasher, "object", type(value).__qualname__)
    _fold_all((part for item in attributes.items() for part in item), hasher, depth)


def _fold_all(values: Iterable[Any], hasher: Any, depth: int) -> None:
    for each in values:
        _fold(each, hasher, depth + 1)


def _fold_tensor(tensor: torch.Tensor, hasher: Any) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise _UnknownContentError
    _tag(hasher, "tensor", f"{tensor.dtype} {list(tensor.shape)}")
    if tensor.numel():
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        hasher.update(plain.reshape(-1).view(torch.uint8).numpy().data)


def _fold_array(array: Any, hasher: Any) -> None:
    if array.dtype.hasobject:
        raise _UnknownContentError
    _tag(hasher, "array", f"{array.dtype.str} {list(array.shape)}")
    hasher.update(array.tobytes())


def _tag(hasher: Any, kind: str, text: str) -> None:
    # With its length, so that no two sequences of parts have the same bytes.
    data = text.encode("utf-8", "surrogatepass")
    hasher.update(f"{kind}:{len(data)}:".encode())
    hasher.update(data)
