"""What an object that loading uses is told by in another process: its class, and its attributes at first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import xxhash

if TYPE_CHECKING:
    from collections.abc import Mapping

IDENTITIES: Final = "of"
"""Key of the identities in what a memory saves, by the name of the root."""
IS_BACK: Final = "is_back"
"""Key of the names of roots that are in their former state already. It is added in memory only."""


def identity_of(root: Any, marks: Mapping[str, str]) -> str:
    """Return the identity of an object whose attributes have these marks."""
    text = "|".join(f"{path}={mark}" for path, mark in sorted(marks.items()))
    return f"{kind_of(type(root))}={xxhash.xxh3_64_hexdigest(text.encode(errors='replace'))}"


def root_of(path: str) -> str:
    """Return the name of the root that a path of attributes and items begins with."""
    return path.partition(".")[0].partition("[")[0]


def kind_of(kind: type) -> str:
    """Return the full name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"
