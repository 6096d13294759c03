"""Batches of something that knows its own position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trainerd.training.data.drawing import known_length
from trainerd.training.data.foreign_loaders import ForeignLoaders
from trainerd.training.data.isolation import in_isolation
from trainerd.training.data.loader_memory import LoaderMemory
from trainerd.training.data.passes import SAMPLE, Pass
from trainerd.training.data.seeds import folded


class StatefulSource:
    """Something that knows its own position: used through ``state_dict`` and ``load_state_dict``.

    What it draws in this process, at its beginning and for each batch, comes from streams of their own: it
    begins again with every attempt, and would otherwise draw once more than in an undisturbed run.

    Args:
        loader: The object.
        seed: Of the session.
    """

    is_idle_at_boundary = False

    def __init__(self, loader: Any, *, seed: int) -> None:
        self._loader = loader
        self._seed = seed
        # A state of one of these from the end of a pass means that nothing is left, also for the next pass.
        self._is_spent_at_end = any(kind.__module__.startswith("datasets.") for kind in type(loader).__mro__)
        self._memory = LoaderMemory({"loader": loader})
        self._inner = ForeignLoaders()

    def begin(self, saved: Mapping[str, Any] | None, done: int) -> None:
        if saved is None:
            return
        self._memory.put_back(saved.get("memory", {}), is_inside=done > 0)
        if "loader" in saved and (done > 0 or not self._is_spent_at_end):
            self._loader.load_state_dict(saved["loader"])

    def saved(self, done: int | None) -> dict[str, Any]:
        del done
        changes = self._memory.saved()
        return {"loader": self._loader.state_dict()} | ({"memory": changes} if changes else {})

    def length(self, which: Pass) -> int | None:
        del which
        return known_length(self._loader)

    def extent(self) -> dict[str, int]:
        return {}  # its own state knows how far it is in whatever it has

    def iterate(self, which: Pass, start: int, is_draining: Callable[[], bool]) -> Iterator[Any]:
        del is_draining
        for owner in (self._loader, getattr(self._loader, "dataset", None)):
            if owner is not None and hasattr(owner, "set_epoch"):
                owner.set_epoch(which.epoch)
        seeds = folded(self._seed, SAMPLE, *which.place, which.epoch)
        return in_isolation(self._loader, start, seeds, self._inner)
