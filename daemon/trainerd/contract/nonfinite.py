"""Numbers that JSON lacks, spelled as the strings ``nan``, ``inf`` and ``-inf`` in everything we write."""

from __future__ import annotations

import math
from typing import Any, Final

_NUMBERS: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def spelled(value: Any) -> Any:
    """Return `value` with every such number in it, at any depth, replaced by its name."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {key: spelled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(item) for item in value]
    return value


def as_number(value: Any) -> Any:
    """Return the number that `value` names, or `value` itself if it names none."""
    return _NUMBERS.get(value, value) if isinstance(value, str) else value
