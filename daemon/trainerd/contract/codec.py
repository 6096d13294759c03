"""Dataclasses to JSON and back, for the records that both halves exchange.

Every record carries a format ``trainerd.<what>/<version>``. Fields that a reader does not know are ignored,
so that a newer writer can add some within a version; a newer *version* is refused by name. Exact for ints,
floats (Python writes the shortest text that reads back to the same double), strings, booleans and None.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import types
import typing
from typing import TYPE_CHECKING, Any, Final, TypeVar, Union

from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

Record = TypeVar("Record")

INT_BITS_MAX: Final = 64
"""Largest whole number of a record, in bits, besides its sign."""

_FLOAT_BITS_MAX: Final = 1023

_PLAIN_ALREADY = frozenset({str, int, float, bool, type(None)})


def to_json(record: object, format_name: str) -> bytes:
    """Encode a dataclass as one JSON object, ending in a newline."""
    return dump({"format": format_name, **to_plain(record)})


def dump(plain: dict[str, Any]) -> bytes:
    """Write one JSON object, ending in a newline."""
    return (json.dumps(plain, allow_nan=False, indent=1) + "\n").encode()


def to_plain(record: object) -> dict[str, Any]:
    """Turn a dataclass into dicts, lists and plain values."""
    kind: Any = type(record)
    return {name: _plain(getattr(record, name)) for name in _recorded_names(kind)}


@functools.cache
def _recorded_names(kind: type[Any]) -> tuple[str, ...]:
    assert dataclasses.is_dataclass(kind)
    return tuple([field.name for field in dataclasses.fields(kind) if not field.metadata.get("transient")])


def _plain(value: Any) -> Any:
    if type(value) in _PLAIN_ALREADY:
        return value
    if dataclasses.is_dataclass(value):
        return to_plain(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def from_json(data: bytes, kind: type[Record], format_name: str, *, source: Path | str = "record") -> Record:
    """Decode what `to_json` wrote.

    Raises:
        CorruptError: Not JSON, another format or version, or a field missing or of the wrong type.
    """
    return from_plain(load(data, format_name, source=source), kind, source=source)


def load(data: bytes, format_name: str, *, source: Path | str = "record") -> dict[str, Any]:
    """Read one JSON object of a format.

    Raises:
        CorruptError: Not JSON, or another format or version.
    """
    plain = parse(data, source=source)
    if not isinstance(plain, dict) or plain.get("format") != format_name:
        found = plain.get("format") if isinstance(plain, dict) else type(plain).__name__
        raise CorruptError(
            f"{source}: expected format {format_name!r}, found {found!r:.60}",
            hint="it was written by another version of trainerd, or is not the file it seems to be",
        )
    return plain


def from_plain(plain: dict[str, Any], kind: type[Record], *, source: Path | str = "record") -> Record:
    """Build a dataclass from dicts, lists and plain values.

    Raises:
        CorruptError: A field is missing or of the wrong type.
    """
    try:
        return typing.cast("Record", _build(plain, kind, str(source)))
    except CorruptError:
        raise
    except Exception as error:  # whatever a record holds, it is the record that is no good
        raise CorruptError(f"{source}: cannot be read: {type(error).__name__}: {error}") from error


def parse(data: bytes | str, *, source: Path | str) -> Any:
    """Read JSON that holds finite numbers alone.

    Raises:
        CorruptError: It is none, or nested too deeply.
    """
    try:
        return json.loads(data, parse_constant=_finite, parse_float=_finite)
    except ValueError as error:
        raise CorruptError(f"{source}: not valid JSON: {error}") from error
    except RecursionError as error:
        raise CorruptError(f"{source}: its values are nested too deeply") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.60} is out of range")
    return number


def _build(value: Any, kind: Any, place: str) -> Any:
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if kind is Any:
        return value
    if origin in {Union, types.UnionType}:
        return _build_optional(value, arguments, place)
    if origin is typing.Literal:
        return _checked(value, value in arguments, kind, place)
    if origin is tuple:
        _checked(value, isinstance(value, list), kind, place)
        return tuple([_build(item, arguments[0], f"{place}[{i}]") for i, item in enumerate(value)])
    if origin is dict:
        _checked(value, isinstance(value, dict), kind, place)
        return {key: _build(item, arguments[1], f"{place}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(value, kind, place)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError as error:
            raise CorruptError(f"{place}: {error}") from error
    if kind is float:
        _checked(value, isinstance(value, int | float) and not isinstance(value, bool), kind, place)
        if isinstance(value, int) and value.bit_length() > _FLOAT_BITS_MAX:
            raise CorruptError(f"{place}: the number is out of range")
        return float(value)
    if kind is int:
        _checked(value, isinstance(value, int) and not isinstance(value, bool), kind, place)
        if value.bit_length() > INT_BITS_MAX:
            raise CorruptError(f"{place}: the number is out of range")
        return value
    return _checked(value, isinstance(value, kind), kind, place)


def _build_optional(value: Any, arguments: tuple[Any, ...], place: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    problems = []
    for argument in arguments:
        if argument is type(None):
            continue
        try:
            return _build(value, argument, place)
        except CorruptError as error:
            problems.append(error)
    raise problems[0]


def _build_dataclass(value: Any, kind: type, place: str) -> Any:
    _checked(value, isinstance(value, dict), kind, place)
    hints = _type_hints(kind)
    arguments = {}
    for field in dataclasses.fields(kind):
        if field.metadata.get("transient"):
            continue
        if field.name in value:
            arguments[field.name] = _build(value[field.name], hints[field.name], f"{place}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise CorruptError(f"{place}: the field {field.name!r} is missing")
    return kind(**arguments)


_type_hints = functools.cache(typing.get_type_hints)  # evaluating annotations is most of the cost of decoding


def prepare(*kinds: type) -> None:
    """Evaluate the annotations of dataclasses, and of those they hold, before the first one is decoded."""
    for kind in kinds:
        for hint in _type_hints(kind).values():
            parts = (hint, *typing.get_args(hint))
            prepare(*(part for part in parts if isinstance(part, type) and dataclasses.is_dataclass(part)))


def _checked(value: Any, holds: bool, kind: Any, place: str) -> Any:
    if not holds:
        name = getattr(kind, "__name__", str(kind))
        raise CorruptError(f"{place}: expected {name}, found {type(value).__name__} {_glimpse(value)}")
    return value


def _glimpse(value: Any) -> str:
    """Show the beginning of a value. Not of a container: its text may be as large as itself."""
    return f"{value!r:.60}" if isinstance(value, str | float | bool | None) else ""
