"""Values of all types and sizes that no program of ours would write: what the fuzzers are made of."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import strategies as st

ODD_TEXTS = [
    *("", "\x1b[2J", "\udcff", "\ud800", "\u202e", "\0", "a" * 5000),
    *("../../etc", "1:1:1", "0x1f", "~", "never", "1h"),
]
TEXTS = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(ODD_TEXTS)
NUMBERS = (
    st.integers(-(10**400), 10**400)
    | st.integers(-10, 10)
    | st.floats()
    | st.sampled_from([2**63, 2**64, -(2**63), 1e308, 5e-324, 10**30])
)


def plain_values() -> st.SearchStrategy[Any]:
    """Return values as JSON has them, small or large, shallow or deep."""
    leaves = st.none() | st.booleans() | NUMBERS | TEXTS
    trees = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=12,
    )
    return trees | st.sampled_from([nested(50), nested(900), [0] * 5000])


def nested(depth: int) -> list[Any]:
    """Return lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def as_yaml(value: Any) -> str:
    """Write a value as YAML, of which JSON is nearly a part; what YAML cannot write, as JSON."""
    try:
        return str(yaml.safe_dump(value, allow_unicode=True))
    except (yaml.YAMLError, RecursionError, ValueError):
        return json.dumps(value, default=str)
