"""What differs between two lists of arguments, as a person would say it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from trainerd.contract.safe_text import safe_line

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN_MAX: Final = 4
VALUE_CHARACTERS_MAX: Final = 60
_SECRET: Final = re.compile(r"key|token|secret|passw", re.IGNORECASE)
_NUMBER: Final = re.compile(r"-\.?\d")
_ABSENT: Final = "not given"


def differing(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Return each option that differs: ``--epochs 2 → 4``, ``--amp not given → given``."""
    first, second = options_of(before), options_of(now)
    return [
        _line(name, first.get(name), second.get(name))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]


def as_sentence(lines: Sequence[str]) -> str:
    """Return the differences in one line, the first ones if there are many."""
    rest = len(lines) - SHOWN_MAX
    return ", ".join(lines[:SHOWN_MAX]) + (f" and {rest} more" if rest > 0 else "")


def options_of(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the values of each option; of arguments without a name by their number.

    ``--lr=0.1`` is ``--lr 0.1``, and the order of options does not count.
    """
    found: dict[str, tuple[str, ...]] = {}
    option: str | None = None
    for word in words:
        if word.startswith("-") and len(word) > 1 and not _NUMBER.match(word):
            option, has_value, value = word.partition("=")
            found[option] = (*found.get(option, ()), *((value,) if has_value else ()))
            option = None if has_value else option
        elif option is not None:
            found[option] = (*found[option], word)
        elif "=" in word:
            name, _, value = word.partition("=")
            found[name] = (*found.get(name, ()), value)
        else:
            found[f"argument {sum(each.startswith('argument ') for each in found) + 1}"] = (word,)
    return found


def _line(name: str, before: tuple[str, ...] | None, now: tuple[str, ...] | None) -> str:
    return safe_line(f"{name} {_value(name, before)} → {_value(name, now)}")


def _value(name: str, values: tuple[str, ...] | None) -> str:
    if values is None:
        return _ABSENT
    text = " ".join(values) or "given"
    if _SECRET.search(name):
        return "(hidden)"
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 1] + "…"
