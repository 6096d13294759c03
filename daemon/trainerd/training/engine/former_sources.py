"""Sources whose place within the epoch a later loop has taken: of loaders that take turns by epoch.

What such a loader remembers is part of the run if the script uses it again.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from trainerd.training.data.passes import Source


class FormerSources:
    """The sources of former loops of one attempt."""

    def __init__(self) -> None:
        self._live: list[weakref.ref[Source]] = []
        self._returned: weakref.WeakSet[Source] = weakref.WeakSet()

    def follow(self, sources: Collection[Source], others: Iterable[Source]) -> None:
        """A loop begins to draw from sources, and `others` had its place in the former epoch."""
        known = [each() for each in self._live]
        self._returned.update([source for source in sources if source in known])
        kept = [each for each in (*known, *others) if each is not None and each not in sources]
        self._live = [weakref.ref(each) for each in dict.fromkeys(kept)]

    def saved(self, in_use: Collection[Source]) -> list[dict[str, Any]]:
        """Return what a checkpoint holds of all that the script may come back to.

        Args:
            in_use: The sources that have a place.
        """
        alive = [each for ref in self._live if (each := ref()) is not None and each not in in_use]
        # A loader that the script makes for each epoch is like the one in use, and may live on for a while.
        alike = {each.identity() for each in in_use} if alive else ()
        told = [self.told(each) | {"state": each.saved(None)} for each in alive]
        return [each for each in told if each["state"] and each["of"] not in alike]

    def told(self, source: Source) -> dict[str, Any]:
        """Return what tells a source, and whether the script still has its loader or has come back to it."""
        is_sure = source.ends_with_loader or source in self._returned
        return {"of": source.identity(), "is_sure": is_sure}

    def clear(self) -> None:
        """Let go of the sources."""
        self._live.clear()
