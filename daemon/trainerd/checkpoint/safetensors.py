"""The layout of a safetensors file: where each tensor lies. No tensor library is needed for that.

The format is that of https://github.com/huggingface/safetensors: eight bytes of little-endian header length,
a JSON header, the data. Two freedoms that it leaves are used. The header is padded with spaces so that the
data begins at a multiple of 4096, for O_DIRECT and for mapping. Tensors with the largest items come first, so
that each lies at a multiple of its item's size with no hole between.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["DATA_ALIGNMENT", "ITEM_BYTES", "TensorEntry", "layout", "parse_header"]

DATA_ALIGNMENT: Final = 4096
"""In bytes: the page, and the largest block that O_DIRECT asks for."""

HEADER_BYTES_MAX: Final = 100_000_000
"""The limit that the safetensors library itself has."""

ITEM_BYTES: Final[Mapping[str, int]] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
"""Size of one item in bytes, by dtype."""

_LENGTH_BYTES: Final = 8
_METADATA: Final = "__metadata__"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in a file.

    Attributes:
        name: Unique within the file.
        dtype: As safetensors names it: ``F32``, ``BF16``, ``I64``, ``BOOL``, …
        shape: Its dimensions; empty for a scalar.
        begin: Offset of its first byte in the data section.
        end: Offset after its last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def layout(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, tuple[TensorEntry, ...]]:
    """Plan a file.

    Args:
        tensors: Name, dtype and shape of each. The order of equal item sizes is kept.
        metadata: Strings for the header.

    Returns:
        All bytes before the data, and the entries in the order in which their data follows.

    Raises:
        ValueError: A dtype is unknown, or a name is taken.
    """
    entries: list[TensorEntry] = []
    offset = 0
    for name, dtype, shape in sorted(tensors, key=lambda tensor: -_item_bytes(tensor[1])):
        end = offset + math.prod(shape) * _item_bytes(dtype)
        entries.append(TensorEntry(name, dtype, tuple(shape), offset, end))
        offset = end
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    for entry in entries:
        if entry.name in header or entry.name == _METADATA:
            raise ValueError(f"the tensor name {entry.name!r} is taken")
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.begin, entry.end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % DATA_ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text, tuple(entries)


def _item_bytes(dtype: str) -> int:
    if dtype not in ITEM_BYTES:
        raise ValueError(f"safetensors files have no dtype {dtype!r}")
    return ITEM_BYTES[dtype]


def parse_header(
    buffer: bytes | bytearray | memoryview, *, file_bytes: int | None = None
) -> tuple[int, tuple[TensorEntry, ...], dict[str, str]]:
    """Read where everything lies, checking every bound.

    Args:
        buffer: The file, or its beginning up to the data.
        file_bytes: Size of the whole file, where `buffer` is only its beginning.

    Returns:
        The offset of the data section in the file, the entries in the order of their data, and the metadata.

    Raises:
        CorruptError: The header is cut, ill-formed, or does not match the size of the file.
    """
    size = len(buffer) if file_bytes is None else file_bytes
    if len(buffer) < _LENGTH_BYTES:
        raise CorruptError(f"a safetensors file cannot be {size} bytes long")
    length = int.from_bytes(bytes(buffer[:_LENGTH_BYTES]), "little")
    offset = _LENGTH_BYTES + length
    if length > HEADER_BYTES_MAX or offset > len(buffer):
        raise CorruptError(f"the header of a safetensors file claims {length} bytes, beyond the file")
    try:
        header = json.loads(bytes(buffer[_LENGTH_BYTES:offset]), object_pairs_hook=_without_duplicates)
        if not isinstance(header, dict):
            raise CorruptError("the header of a safetensors file is not an object")
        metadata = _metadata(header.pop(_METADATA, {}))
        entries = sorted(
            (_entry(name, fields) for name, fields in header.items()),
            key=lambda entry: (entry.begin, entry.end),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptError(f"the header of a safetensors file is ill-formed: {error!r:.200}") from error
    _check_coverage(entries, size - offset)
    return offset, tuple(entries), metadata


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice")
    return result


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise TypeError("the metadata is not a mapping of strings")
    return value


def _entry(name: str, fields: Any) -> TensorEntry:
    dtype, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
    numbers = [begin, end, *shape]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{name!r} has an offset or dimension that is no count")
    if end - begin != math.prod(shape) * _item_bytes(dtype):
        raise ValueError(f"{name!r} has {end - begin} bytes for {shape} of {dtype}")
    return TensorEntry(name, dtype, tuple(shape), begin, end)


def _check_coverage(entries: Sequence[TensorEntry], data_bytes: int) -> None:
    """No hole, no overlap, nothing before or after: what the safetensors library demands too."""
    position = 0
    for entry in entries:
        if entry.begin != position:
            raise CorruptError(f"tensor {entry.name!r:.200} begins at {entry.begin}, expected {position}")
        position = entry.end
    if position != data_bytes:
        raise CorruptError(f"a safetensors file has {data_bytes} bytes of data, its header says {position}")
