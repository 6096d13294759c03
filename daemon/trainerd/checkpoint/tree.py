"""A tree of plain values as JSON, and back, exactly: types and all.

What JSON has is written as itself: None, booleans, ints, finite floats (Python writes the shortest text that
reads back to the same double), strings, lists, and dicts whose keys are strings. The rest is an object with one
key that begins with ``$``:

==================================  ====================================================
``{"$float": "nan"}``               nan, inf or -inf
``{"$tuple": […]}``                 a tuple
``{"$dict": [[key, value], …]}``    a dict with other keys, or with keys that begin with $
``{"$ordered": [[key, value], …]}`` an OrderedDict
``{"$set": […]}``                   a set, its items sorted by their JSON
``{"$frozenset": […]}``             likewise
``{"$bytes": "…"}``                 bytes, in base64
``{"$complex": [real, imaginary]}`` a complex number
``{"$range": [start, stop, step]}`` a range
==================================  ====================================================

Other tags are the caller's: tensors, and what surrounds them. Only the exact types are taken: a subclass would
come back as its base class, and that is not the same state.
"""

from __future__ import annotations

import base64
import json
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from trainerd.errors import CorruptError, UnsupportedValueError

if TYPE_CHECKING:
    from collections.abc import Callable

_DEPTH_MAX: Final = 200


def encode_tree(tree: Any, *, leaf: Callable[[Any, str], dict[str, Any] | None], root: str = "state") -> Any:
    """Turn a tree into what `json` can write.

    Args:
        tree: The values.
        leaf: Asked for every value that is not listed above, with its path; returns a tagged object, or None
            if it does not know the value either.
        root: Name of the tree, with which every path begins.

    Raises:
        UnsupportedValueError: A value has no exact form, or contains itself; the message has its path.
    """
    return _Encoder(leaf).encode(tree, root, 0)


class _Encoder:
    def __init__(self, leaf: Callable[[Any, str], dict[str, Any] | None]) -> None:
        self._leaf = leaf

    def encode(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        if value is None or kind in {bool, int, str}:
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if depth > _DEPTH_MAX:
            hint = f"it contains itself, or is nested more than {_DEPTH_MAX} deep"
            raise UnsupportedValueError(path[:200], value, hint=hint)
        encoder = _ENCODERS.get(kind)
        if encoder is not None:
            return encoder(self, value, path, depth + 1)
        tagged = self._leaf(value, path)
        if tagged is None:
            raise UnsupportedValueError(path, value)
        return tagged

    def items(self, values: Any, path: str, depth: int) -> list[Any]:
        return [self.encode(item, f"{path}[{index}]", depth) for index, item in enumerate(values)]

    def pairs(self, values: Any, path: str, depth: int) -> list[Any]:
        return [
            [self.encode(key, f"{path} (key)", depth), self.encode(item, _below(path, key), depth)]
            for key, item in values.items()
        ]

    def mapping(self, values: dict[Any, Any], path: str, depth: int) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in values):
            return {key: self.encode(item, _below(path, key), depth) for key, item in values.items()}
        return {"$dict": self.pairs(values, path, depth)}

    def members(self, values: Any, path: str, depth: int) -> list[Any]:
        encoded = [self.encode(item, f"{path}{{…}}", depth) for item in values]
        return sorted(encoded, key=lambda item: json.dumps(item, sort_keys=True))


def _below(path: str, key: Any) -> str:
    return f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]"


_ENCODERS: Final[dict[type, Callable[[_Encoder, Any, str, int], Any]]] = {
    list: lambda encoder, value, path, depth: encoder.items(value, path, depth),
    dict: lambda encoder, value, path, depth: encoder.mapping(value, path, depth),
    tuple: lambda encoder, value, path, depth: {"$tuple": encoder.items(value, path, depth)},
    OrderedDict: lambda encoder, value, path, depth: {"$ordered": encoder.pairs(value, path, depth)},
    set: lambda encoder, value, path, depth: {"$set": encoder.members(value, path, depth)},
    frozenset: lambda encoder, value, path, depth: {"$frozenset": encoder.members(value, path, depth)},
    bytes: lambda _encoder, value, _path, _depth: {"$bytes": base64.b64encode(value).decode()},
    complex: lambda encoder, value, path, depth: {
        "$complex": [encoder.encode(part, path, depth) for part in (value.real, value.imag)]
    },
    range: lambda _encoder, value, _path, _depth: {"$range": [value.start, value.stop, value.step]},
}


def decode_tree(plain: Any, *, leaf: Callable[[str, Any], Any]) -> Any:
    """Turn what `json` read back into the tree.

    Args:
        plain: The document.
        leaf: Asked for every tag that is not listed above, with what stands beside it.

    Raises:
        CorruptError: The document is not one that `encode_tree` writes.
    """
    try:
        return _decode(plain, leaf)
    except (TypeError, ValueError, KeyError, IndexError, RecursionError) as error:
        raise CorruptError(f"the state tree cannot be read: {error!r}") from error


def _decode(plain: Any, leaf: Callable[[str, Any], Any]) -> Any:
    if isinstance(plain, list):
        return [_decode(item, leaf) for item in plain]
    if not isinstance(plain, dict):
        return plain
    tag = next(iter(plain), "")
    if not tag.startswith("$"):
        return {key: _decode(item, leaf) for key, item in plain.items()}
    if len(plain) != 1:
        raise CorruptError(f"the state tree cannot be read: {tag} does not stand alone")
    decoder = _DECODERS.get(tag)
    return leaf(tag, plain[tag]) if decoder is None else decoder(plain[tag], leaf)


_DECODERS: Final[dict[str, Callable[[Any, Callable[[str, Any], Any]], Any]]] = {
    "$float": lambda value, _leaf: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[value],
    "$tuple": lambda value, leaf: tuple(_decode(item, leaf) for item in value),
    "$dict": lambda value, leaf: {_decode(key, leaf): _decode(item, leaf) for key, item in value},
    "$ordered": lambda value, leaf: OrderedDict(
        (_decode(key, leaf), _decode(item, leaf)) for key, item in value
    ),
    "$set": lambda value, leaf: {_decode(item, leaf) for item in value},
    "$frozenset": lambda value, leaf: frozenset(_decode(item, leaf) for item in value),
    "$bytes": lambda value, _leaf: base64.b64decode(value, validate=True),
    "$complex": lambda value, leaf: complex(*(_decode(part, leaf) for part in value)),
    "$range": lambda value, _leaf: range(*value),
}
