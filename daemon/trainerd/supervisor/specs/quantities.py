"""Durations and sizes as people write them: ``90``, ``"1h30m"``, ``"2GiB"``."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

DURATION_PATTERN: Final = (
    r"^(?=[0-9])([0-9]+(\.[0-9]+)?d)?([0-9]+(\.[0-9]+)?h)?([0-9]+(\.[0-9]+)?m)?"
    r"([0-9]+(\.[0-9]+)?s)?([0-9]+(\.[0-9]+)?ms)?$"
)
SIZE_PATTERN: Final = r"^[0-9]+(\.[0-9]+)? ?([kKmMgGtT][iI]?)?[bB]$"

QUANTITY_CHARACTERS_MAX: Final = 1200
"""Longest text that is read as a duration or a size."""

DURATION_S_MAX: Final = 366 * 86400.0
SIZE_BYTES_MAX: Final = 2**60

_UNITS_S: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_UNIT_BYTES: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}

_DURATION = re.compile(DURATION_PATTERN)
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[dhms])")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)")


def parse_duration_s(value: object) -> float:
    """Read a duration: a number of seconds, or numbers with the units d, h, m, s, ms in that order.

    Returns:
        Seconds, from 0 to a year.

    Raises:
        ValueError: It is neither; the message shows how to write one.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{_shown(value)} is not a duration; {_DURATION_HINT}")  # noqa: TRY004 (pydantic's way)
    if isinstance(value, str):
        if len(value) > QUANTITY_CHARACTERS_MAX:
            raise ValueError(f"the text is too long for a duration; {_DURATION_HINT}")
        if not _DURATION.fullmatch(value):
            raise ValueError(f"{value!r} is not a duration; {_DURATION_HINT}")
        parts = _PART.findall(value)
        exact = sum((Fraction(number) * _unit_s(unit) for number, unit in parts), Fraction(0))
    elif math.isfinite(value):
        exact = Fraction(value)
    else:
        raise ValueError(f"{value} is not a duration; {_DURATION_HINT}")
    if not 0 <= exact <= DURATION_S_MAX:
        raise ValueError(f"{value!r} is out of range: a duration lies between 0 and a year")
    return float(exact)


def format_duration(seconds: float) -> str:
    """Write a duration so that `parse_duration_s` reads the same number back."""
    if seconds == 0 or not float(seconds).is_integer():
        return f"{Decimal(repr(seconds)).normalize():f}s"
    left, text = int(seconds), ""
    for unit, length_s in _UNITS_S.items():
        count, left = divmod(left, length_s)
        text += f"{count}{unit}" if count else ""
    return text


def parse_size_bytes(value: object) -> int:
    """Read a size: a number with the unit B, kB, MB, GB, TB (powers of 1000) or KiB … TiB (powers of 1024).

    Returns:
        Bytes, rounded down to a whole number.

    Raises:
        ValueError: It is none; the message shows how to write one.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"the size {value} has no unit; {_SIZE_HINT}")  # noqa: TRY004 (pydantic's way)
    if isinstance(value, str) and len(value) > QUANTITY_CHARACTERS_MAX:
        raise ValueError(f"the text is too long for a size; {_SIZE_HINT}")
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    unit_bytes = _UNIT_BYTES.get(match[2].upper()) if match else None
    if match is None or unit_bytes is None:
        raise ValueError(f"{_shown(value)} is not a size; {_SIZE_HINT}")
    exact = int(Fraction(match[1]) * unit_bytes)
    if not 0 < exact <= SIZE_BYTES_MAX:
        raise ValueError(f"{value!r} is out of range: a size lies between 1 byte and 1 EiB")
    return exact


def format_size(size_bytes: int) -> str:
    """Write a size in the largest exact binary unit; `parse_size_bytes` reads the same number back."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _UNIT_BYTES[unit.upper()] == 0:
            return f"{size_bytes // _UNIT_BYTES[unit.upper()]}{unit}"
    return f"{size_bytes}B"


def _unit_s(unit: str) -> Fraction:
    return Fraction(1, 1000) if unit == "ms" else Fraction(_UNITS_S[unit])


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else f"a {type(value).__name__}"


_DURATION_HINT: Final = 'write seconds as a number, or "30s", "5m", "1h30m"'
_SIZE_HINT: Final = 'write "2GiB" or "512MB"'
