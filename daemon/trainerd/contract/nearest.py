"""What the user may have meant: the valid word nearest to the one that was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_SIMILARITY_MIN: Final = 0.6
_LISTED_MAX: Final = 8


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like `word`, None if none is like it."""
    # Imported here: most runs of the command line never need it.
    from difflib import get_close_matches

    matches = get_close_matches(word.lower(), list(known), n=1, cutoff=_SIMILARITY_MIN)
    return matches[0] if matches else None


def nearest_hint(word: str, known: Iterable[str]) -> str | None:
    """Return a hint for an unknown word: the nearest one, or the first few that there are."""
    words = sorted(known)
    if match := nearest(word, words):
        return f"did you mean {match!r}?"
    if not words:
        return None
    listed = ", ".join(words[:_LISTED_MAX])
    return f"there are: {listed}{', …' if len(words) > _LISTED_MAX else ''}"
