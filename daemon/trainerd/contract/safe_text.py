"""Text from outside, made safe to store and to show: the one function for every boundary.

Exception messages, records, file names and log lines are written by programs and people that trainerd does
not know. In what is returned here, control characters, escape sequences, characters that reorder a line and
halves of characters (undecodable bytes of a file name) are written as backslash escapes, and nothing is
longer than its limit: it can be encoded, stored in the journal and printed on a terminal.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final, TypeVar

from trainerd.contract.counted import counted

TEXT_CHARACTERS_MAX: Final = 4_000
"""Longest message that is kept, in characters."""

LINES_MAX: Final = 200
"""Most lines of a traceback or a list of differences that are kept."""

_UNSAFE: Final = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f"  # control characters but tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # those that change the direction of a line
    "\u2028\u2029\ufeff"  # line ends that only some programs know, and the mark of byte order
    "\ud800-\udfff]"  # halves of characters
)

Value = TypeVar("Value")


def safe_text(text: str, *, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """Return `text` as it may be stored and shown; tabs and ends of lines stay."""
    if len(text) <= characters_max:
        return _UNSAFE.sub(_escaped, text)
    note = f" … ({counted(len(text), 'character')} in all)"
    return _UNSAFE.sub(_escaped, text[: max(characters_max - len(note), 0)]) + note


def safe_line(text: str, *, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """Return `text` as `safe_text`, on one line: ends of lines and tabs are escaped as well."""
    return safe_text(text, characters_max=characters_max).replace("\n", "\\n").replace("\t", "\\t")


def one_line(text: str) -> str:
    """Return the lines of `text` joined to one, with semicolons between them."""
    lines = [line.strip() for line in text.splitlines()]
    return "; ".join(line for line in lines if line)


def safe_value(value: Value) -> Value:
    """Return `value` with every text in it, at any depth, as `safe_text` has it, and no more than some lines.

    Dataclasses are rebuilt; tuples and lists of texts are cut at `LINES_MAX`.
    """
    safe: Any = value
    if isinstance(value, str):
        safe = safe_text(value)
    elif is_dataclass(value) and not isinstance(value, type):
        safe = replace(
            value, **{field.name: safe_value(getattr(value, field.name)) for field in fields(value)}
        )
    elif isinstance(value, dict):
        safe = {safe_value(key): safe_value(item) for key, item in value.items()}
    elif isinstance(value, tuple | list):
        safe = _safe_sequence(value)
    return safe  # type: ignore[no-any-return]


def _safe_sequence(value: Any) -> Any:
    items = [safe_value(item) for item in value]
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) == len(items) > LINES_MAX:
        items = [
            *items[: LINES_MAX // 2],
            f"… ({counted(len(items) - LINES_MAX, 'more line')})",
            *items[-LINES_MAX // 2 :],
        ]
    return tuple(items) if isinstance(value, tuple) else items


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    if 0xDC80 <= number <= 0xDCFF:  # a byte that could not be decoded, as Python keeps it
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}"
