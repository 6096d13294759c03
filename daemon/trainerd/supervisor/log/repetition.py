"""Holds back repetitions: what lasts is said at once, and again from time to time with a count."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from trainerd.supervisor.log.catalogue import CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

SAY_AGAIN_S: Final = 300.0
"""What lasts is said again after so many seconds."""

KEYS_MAX: Final = 4096
"""So many different events are told apart; beyond that the oldest is forgotten."""

_SAME: Final = ("job", "what", "folder", "hook", "notice", "source")
_DIGITS: Final = re.compile(r"\d+")

ENDS: Final = {"journal.written-again": ("journal.full", "journal.unusable")}
"""Events that end what lasted: the next one is news."""


@dataclass
class _Said:
    at_s: float
    held_back: int = 0


@dataclass
class RepeatLimit:
    """What was said when, for events of a bounded rate."""

    _said: dict[Hashable, _Said] = field(default_factory=dict)

    def note(self, event: Mapping[str, Any], now_s: float) -> int | None:
        """Return how many of its kind were held back before it; None if it is to be held back itself.

        Args:
            event: Its fields, with its name as ``event``.
            now_s: When, by a clock that does not jump.
        """
        name = str(event.get("event", ""))
        for ended in ENDS.get(name, ()):
            for key in [key for key in self._said if isinstance(key, tuple) and key[0] == ended]:
                del self._said[key]
        kind = CATALOGUE.get(name)
        if kind is None or not kind.is_bounded:
            return 0
        reason = _DIGITS.sub("#", str(event.get("reason", "")))
        key = (name, *(str(event.get(field, "")) for field in _SAME), reason)
        before = self._said.get(key)
        if before is not None and now_s - before.at_s < SAY_AGAIN_S:
            before.held_back += 1
            return None
        self._said.pop(key, None)
        while len(self._said) >= KEYS_MAX:
            del self._said[next(iter(self._said))]
        self._said[key] = _Said(now_s)
        return before.held_back if before is not None else 0
