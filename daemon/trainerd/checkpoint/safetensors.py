"""The layout of a safetensors file: eight bytes of length, a JSON header, the tensors one after the other.

The format is https://github.com/huggingface/safetensors, and files written by it open with that library. The
header is padded with spaces so that the tensors begin at a multiple of a page: they can then be written past the
page cache, and mapped.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ALIGNMENT_BYTES: Final = 4096
HEADER_BYTES_MAX: Final = 100_000_000  # the limit of the safetensors library

ITEM_BYTES: Final = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "U16": 2,
    "U32": 4,
    "U64": 8,
    "BOOL": 1,
    "C64": 8,
}

_LENGTH: Final = struct.Struct("<Q")


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file. `begin` and `end` are bytes from the start of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def layout(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, tuple[TensorEntry, ...]]:
    """Lay tensors out, given as (name, dtype, shape), without a hole.

    The widest items come first, so that every tensor begins at a multiple of its item's size.

    Returns:
        What the file begins with, and the tensors in the order in which their bytes follow.
    """
    entries = []
    begin = 0
    for name, dtype, shape in sorted(tensors, key=lambda tensor: -ITEM_BYTES[tensor[1]]):
        end = begin + math.prod(shape) * ITEM_BYTES[dtype]
        entries.append(TensorEntry(name, dtype, tuple(shape), begin, end))
        begin = end
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.begin, entry.end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    padded = text.ljust(-(-(len(text) + _LENGTH.size) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES - _LENGTH.size)
    return _LENGTH.pack(len(padded)) + padded, tuple(entries)


def parse_header(data: bytes | bytearray | memoryview) -> tuple[int, tuple[TensorEntry, ...], dict[str, str]]:
    """Read the header of a whole file and check every bound.

    Returns:
        Where the data begins, the tensors by position, the metadata.

    Raises:
        CorruptError: It is not a safetensors file, or not a whole one.
    """
    try:
        (length,) = _LENGTH.unpack_from(data)
        if length > min(HEADER_BYTES_MAX, len(data) - _LENGTH.size):
            raise CorruptError(f"not a whole safetensors file: a header of {length} bytes in {len(data)}")
        header = json.loads(bytes(data[_LENGTH.size : _LENGTH.size + length]))
        metadata = header.pop("__metadata__", {})
        entries = sorted(
            (_entry(name, value) for name, value in header.items()), key=lambda e: (e.begin, e.end)
        )
    except (struct.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptError(f"not a safetensors file: {error!r}") from error
    offset = _LENGTH.size + length
    end = 0
    for entry in entries:
        if entry.begin != end:
            raise CorruptError(f"safetensors: {entry.name} begins at {entry.begin}, not at {end}")
        end = entry.end
    if offset + end != len(data):
        raise CorruptError(f"safetensors: {len(data)} bytes, the header speaks of {offset + end}")
    return offset, tuple(entries), metadata


def _entry(name: str, value: Any) -> TensorEntry:
    shape, (begin, end) = tuple(value["shape"]), value["data_offsets"]
    if value["dtype"] in ITEM_BYTES and math.prod(shape) * ITEM_BYTES[value["dtype"]] != end - begin:
        raise CorruptError(
            f"safetensors: {name} has {end - begin} bytes, not those of {value['dtype']} {list(shape)}"
        )
    return TensorEntry(name, value["dtype"], shape, begin, end)
