"""The typed JSON tree: any nesting of plain Python values, to JSON and back exactly.

What JSON has (None, bool, int, str, finite float, list, dict with plain string keys) stands as itself. All
else is an object with one key that begins with ``$``, the tag. Types are compared exactly: a subclass would
come back as something else, so it is refused at save time, by its path in the tree. `docs/formats.md` lists
the tags.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections import OrderedDict, deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from trainerd.errors import CorruptError, UnsupportedValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["DEPTH_MAX", "decode_tree", "encode_tree"]

DEPTH_MAX: Final = 64
"""Deeper trees are refused: readers recurse, and a tree that deep is a mistake or an attack."""

PLAIN_INT_MAX: Final = 2**63 - 1
"""Larger whole numbers are tagged: other readers hold 64 bits, and Python limits long decimal texts."""

_CANONICAL_NAN: Final = struct.pack(">d", math.nan)
_DOTTED_KEY: Final = re.compile(r"[A-Za-z0-9_.\-]+")


def encode_tree(tree: Any, *, leaf: Callable[[Any, str], dict[str, Any] | None], root: str = "state") -> Any:
    """Turn a tree into what `json.dumps` takes, exactly. Nothing in it is changed.

    Two places that hold the same list are written twice: only `leaf` can keep identity, for what it encodes.

    Args:
        tree: The values.
        leaf: Asked for every value of a type that this module does not know, with its path; returns a tagged
            object, or None if it does not know the type either.
        root: What paths begin with.

    Raises:
        UnsupportedValueError: A value has no exact form, contains itself, or lies too deep.
    """
    try:
        return _Encoder(leaf).encode(tree, root)
    except RecursionError as error:
        raise UnsupportedValueError(
            root, tree, hint="it lies too deep for the stack of its caller"
        ) from error


def decode_tree(plain: Any, *, leaf: Callable[[str, Any], Any]) -> Any:
    """Turn what `json.loads` returned back into the tree.

    Args:
        plain: The document.
        leaf: Asked for every tag that is not this module's: ``leaf("$tensor", "model.fc.weight")``.

    Raises:
        CorruptError: The document is not of this form, or `leaf` raised it.
    """
    try:
        return _Decoder(leaf).decode(plain, 0)
    except RecursionError as error:
        raise CorruptError("a state tree lies too deep for the stack of its caller") from error


def path_of(path: str, key: Any) -> str:
    """Return the path of an entry: dotted where that reads well, in brackets where it does not."""
    if type(key) is str:
        return path + _text_suffix(key)
    if type(key) is int and abs(key) > PLAIN_INT_MAX:
        return f"{path}[{key:#x}]"  # Python refuses to write long ones in decimal
    return f"{path}[{key!r:.80}]"


@lru_cache(maxsize=4096)  # the same keys come at every save, and the loop waits meanwhile
def _text_suffix(key: str) -> str:
    return f".{key}" if _DOTTED_KEY.fullmatch(key) else f"[{json.dumps(key)}]"


@lru_cache(maxsize=4096)
def _is_plain_key(key: str) -> bool:
    return key[:1] != "$" and _is_unicode(key)


class _Encoder:
    def __init__(self, leaf: Callable[[Any, str], dict[str, Any] | None]) -> None:
        self._leaf = leaf
        self._around: list[int] = []  # the containers around the value at hand, to find cycles

    def encode(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind is int:
            return value if -PLAIN_INT_MAX <= value <= PLAIN_INT_MAX else {"$int": hex(value)}
        if kind is str:
            return value if _is_unicode(value) else {"$str": _base64(value.encode("utf-8", "surrogatepass"))}
        if kind in _FORMS:
            return self._encode_form(kind, value, path)
        if kind is float:
            return value if math.isfinite(value) else {"$float": _nonfinite_name(value)}
        if value is None or kind is bool:
            return value
        encoded = self._leaf(value, path)
        if encoded is None:
            raise UnsupportedValueError(path, value)
        return encoded

    def _encode_form(self, kind: type, value: Any, path: str) -> Any:
        if id(value) in self._around:
            raise UnsupportedValueError(
                path, value, hint="it contains itself; keep the cycle out of the state"
            )
        if len(self._around) >= DEPTH_MAX:
            raise UnsupportedValueError(path, value, hint=f"it lies more than {DEPTH_MAX} levels deep")
        self._around.append(id(value))
        try:
            return _FORMS[kind](self, value, path)
        finally:
            self._around.pop()

    def items(self, values: Iterable[Any], path: str) -> list[Any]:
        return [self.encode(item, f"{path}[{index}]") for index, item in enumerate(values)]

    def pairs(self, value: Mapping[Any, Any], path: str) -> list[list[Any]]:
        return [
            [self.encode(key, f"{path}.<key>"), self.encode(item, path_of(path, key))]
            for key, item in value.items()
        ]

    def mapping(self, value: dict[Any, Any], path: str) -> dict[str, Any]:
        encoded = {}
        for key, item in value.items():
            if type(key) is not str or not _is_plain_key(key):
                return {"$dict": self.pairs(value, path)}
            encoded[key] = self.encode(item, path + _text_suffix(key))
        return encoded

    def unordered(self, values: Iterable[Any], path: str) -> list[Any]:
        """Equal sets give equal text, whatever their order in memory."""
        encoded = [self.encode(item, f"{path}.<item>") for item in values]
        return sorted(encoded, key=lambda item: json.dumps(item, sort_keys=True))


_FORMS: Final[dict[type, Callable[[_Encoder, Any, str], Any]]] = {
    list: lambda encoder, value, path: encoder.items(value, path),
    dict: lambda encoder, value, path: encoder.mapping(value, path),
    tuple: lambda encoder, value, path: {"$tuple": encoder.items(value, path)},
    OrderedDict: lambda encoder, value, path: {"$ordered": encoder.pairs(value, path)},
    set: lambda encoder, value, path: {"$set": encoder.unordered(value, path)},
    frozenset: lambda encoder, value, path: {"$frozenset": encoder.unordered(value, path)},
    deque: lambda encoder, value, path: {"$deque": [encoder.items(value, path), value.maxlen]},
    bytes: lambda _, value, __: {"$bytes": _base64(value)},
    bytearray: lambda _, value, __: {"$bytearray": _base64(value)},
    complex: lambda encoder, value, path: {"$complex": encoder.items((value.real, value.imag), path)},
    range: lambda encoder, value, path: {
        "$range": encoder.items((value.start, value.stop, value.step), path)
    },
    slice: lambda encoder, value, path: {
        "$slice": encoder.items((value.start, value.stop, value.step), path)
    },
}


def _nonfinite_name(value: float) -> str:
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    bits = struct.pack(">d", value)
    return "nan" if bits == _CANONICAL_NAN else f"nan:{bits.hex()}"


def _is_unicode(text: str) -> bool:
    """Return whether UTF-8 can hold `text`: one half of a surrogate pair alone it cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _base64(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode("ascii")


class _Decoder:
    def __init__(self, leaf: Callable[[str, Any], Any]) -> None:
        self._leaf = leaf

    def decode(self, plain: Any, depth: int) -> Any:
        if depth > DEPTH_MAX * 2:  # a deque takes two levels of JSON
            raise CorruptError(f"a state tree lies more than {DEPTH_MAX} levels deep")
        kind = type(plain)
        if kind is list:
            return [self.decode(item, depth + 1) for item in plain]
        if kind is dict:
            tag = next(iter(plain), "")
            if tag[:1] == "$" and len(plain) == 1:
                return self._decode_tagged(tag, plain[tag], depth + 1)
            for key in plain:
                if key[:1] == "$":
                    raise CorruptError(f"a state tree has the tag {key!r:.40} among other keys")
            return {key: self.decode(item, depth + 1) for key, item in plain.items()}
        if kind is float and not math.isfinite(plain):
            raise CorruptError("a state tree has a number that JSON does not have")
        return plain

    def _decode_tagged(self, tag: str, payload: Any, depth: int) -> Any:
        if tag not in _BUILDERS:
            return self._leaf(tag, payload)
        try:
            return _BUILDERS[tag](self, payload, depth)
        except (TypeError, ValueError, KeyError, struct.error) as error:
            raise CorruptError(f"a state tree has an ill-formed {tag}: {error}") from error

    def items(self, payload: Any, depth: int, *, count: int | None = None) -> list[Any]:
        if type(payload) is not list or (count is not None and len(payload) != count):
            raise ValueError(f"expected a list{f' of {count}' if count is not None else ''}")
        return [self.decode(item, depth) for item in payload]

    def pairs(self, payload: Any, depth: int) -> list[list[Any]]:
        pairs = [self.items(pair, depth, count=2) for pair in self._rows(payload)]
        if len({_identity(key) for key, _ in pairs}) != len(pairs):
            raise ValueError("a key appears twice")
        return pairs

    def _rows(self, payload: Any) -> list[Any]:
        if type(payload) is not list:
            raise ValueError("expected a list of pairs")
        return payload

    def members(self, payload: Any, depth: int) -> list[Any]:
        members = self.items(payload, depth)
        if len({_identity(member) for member in members}) != len(members):
            raise ValueError("a member appears twice")
        return members


def _identity(value: Any) -> Any:
    """Return what tells keys apart as a dict does; each NaN is its own."""
    hash(value)  # a TypeError here is an ill-formed document
    return value


_BUILDERS: Final[dict[str, Callable[[_Decoder, Any, int], Any]]] = {
    "$int": lambda _, payload, __: int(_text(payload), 16),
    "$float": lambda _, payload, __: _nonfinite(_text(payload)),
    "$str": lambda _, payload, __: _unbase64(payload).decode("utf-8", "surrogatepass"),
    "$tuple": lambda decoder, payload, depth: tuple(decoder.items(payload, depth)),
    "$dict": lambda decoder, payload, depth: dict(decoder.pairs(payload, depth)),
    "$ordered": lambda decoder, payload, depth: OrderedDict(decoder.pairs(payload, depth)),
    "$set": lambda decoder, payload, depth: set(decoder.members(payload, depth)),
    "$frozenset": lambda decoder, payload, depth: frozenset(decoder.members(payload, depth)),
    "$deque": lambda decoder, payload, depth: _deque(*decoder.items(payload, depth, count=2)),
    "$bytes": lambda _, payload, __: _unbase64(payload),
    "$bytearray": lambda _, payload, __: bytearray(_unbase64(payload)),
    "$complex": lambda decoder, payload, depth: _complex(*decoder.items(payload, depth, count=2)),
    "$range": lambda decoder, payload, depth: range(*decoder.items(payload, depth, count=3)),
    "$slice": lambda decoder, payload, depth: slice(*decoder.items(payload, depth, count=3)),
}


def _text(payload: Any) -> str:
    if type(payload) is not str:
        raise TypeError("expected a string")
    return payload


def _unbase64(payload: Any) -> bytes:
    return base64.b64decode(_text(payload), validate=True)


def _nonfinite(name: str) -> float:
    if name in {"nan", "inf", "-inf"}:
        return float(name)
    prefix, _, bits = name.partition(":")
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    if prefix != "nan" or not math.isnan(value):
        raise ValueError(f"{name!r:.40} is no such number")
    return float(value)


def _deque(items: list[Any], maxlen: int | None) -> deque[Any]:
    if maxlen is not None and len(items) > maxlen:
        raise ValueError("more items than it may hold")
    return deque(items, maxlen)


def _complex(real: float, imaginary: float) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise TypeError("expected two floats")
    return complex(real, imaginary)
