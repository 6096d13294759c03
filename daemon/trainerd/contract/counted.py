"""Counts with their nouns: 1 step, 2 steps; the only step, all 2 steps."""

from __future__ import annotations


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """Return a count with its noun in the form that goes with it.

    Args:
        count: How many there are.
        singular: The noun after 1; words that follow it may have another form too, such as ``job goes``.
        plural: The noun after any other count; the singular with an s unless given.
    """
    if count == 1:
        return f"1 {singular}"
    return f"{count} {plural if plural is not None else f'{singular}s'}"


def all_of(count: int, singular: str) -> str:
    """Return that all of so many are meant: the only step, all 2 steps."""
    return f"the only {singular}" if count == 1 else f"all {counted(count, singular)}"
