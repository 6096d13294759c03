"""The sources of a session's loaders, kept for as long as they are used.

A loader that persists has workers that persist in its source. A loader that the script makes for each epoch
has a source that ends with it.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trainerd.training.data.dataset_memory import FirstMarks
from trainerd.training.data.sources import is_stock, source_for

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from trainerd.contract.verdict import Reason
    from trainerd.training.data.passes import Source

OTHERS_MAX: Final = 16
"""How many loaders are kept that nothing tells the end of, because their sources need them."""


@dataclass
class _Entry:
    loader: Any  # weak if the source does without it
    source: Source
    epoch: int

    def is_of(self, loader: Any) -> bool:
        return (self.loader() if isinstance(self.loader, weakref.ref) else self.loader) is loader


class SourceCache:
    """Sources by loader.

    The source of a stock loader is dropped with the loader. Others hold their loader: they are dropped once
    they were not used for a whole epoch, and the oldest if there are many.

    Args:
        warn: Says something to the user once.
        suspect: Takes in a known cause of inexactness.
    """

    def __init__(self, warn: Callable[[str], None], suspect: Callable[[Reason], None]) -> None:
        self._warn = warn
        self._suspect = suspect
        self._entries: dict[int, _Entry] = {}
        self._first = FirstMarks()

    def __len__(self) -> int:
        return len(self._entries)

    def source(self, loader: Any, *, seed: int, epoch: int) -> Source:
        """Return the source of a loader, made at its first use."""
        key = id(loader)
        entry = self._entries.pop(key, None)
        if entry is None or not entry.is_of(loader):
            _close(entry)
            self._drop_unused(epoch)
            source = source_for(loader, seed=seed, warn=self._warn, suspect=self._suspect, first=self._first)
            entry = _Entry(self._reference(loader, key), source, epoch)
            source.ends_with_loader = isinstance(entry.loader, weakref.ref)
            source.was_there = self._first.parts.was_there(loader)
        entry.epoch = epoch
        self._entries[key] = entry  # the one used last comes last
        return entry.source

    def look_around(self, kinds: Collection[str]) -> None:
        """Note what datasets and samplers look like before the first epoch, and which loaders there are.

        Args:
            kinds: Classes of loaders that the checkpoint holds states of.
        """
        self._first.look_around(kinds)

    def clear(self) -> None:
        """Let go of all, and end workers that persist."""
        while self._entries:
            _close(self._entries.popitem()[1])

    def _reference(self, loader: Any, key: int) -> Any:
        if not is_stock(loader):
            return loader
        entries = self._entries  # not the cache: it would live on with the loader

        def dropped(reference: object) -> None:
            if key in entries and entries[key].loader is reference:
                _close(entries.pop(key))

        return weakref.ref(loader, dropped)

    def _drop_unused(self, epoch: int) -> None:
        others = [key for key, entry in self._entries.items() if not isinstance(entry.loader, weakref.ref)]
        surplus = others[: max(len(others) - OTHERS_MAX, 0)]
        for key in [key for key in others if self._entries[key].epoch < epoch - 1] + surplus:
            _close(self._entries.pop(key, None))


def _close(entry: _Entry | None) -> None:
    close = getattr(entry.source, "close", None) if entry is not None else None
    if close is not None:
        close()
