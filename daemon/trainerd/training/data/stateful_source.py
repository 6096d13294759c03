"""Batches of something that knows its own position."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trainerd.contract.verdict import Reason
from trainerd.training.data.drawing import known_length
from trainerd.training.data.foreign_loaders import ForeignLoaders
from trainerd.training.data.isolation import in_isolation
from trainerd.training.data.loader_memory import LoaderMemory
from trainerd.training.data.passes import SAMPLE, Pass
from trainerd.training.data.root_identity import kind_of
from trainerd.training.data.seeds import folded
from trainerd.training.data.torchdata_loaders import (
    end_former_pass,
    is_used_loader_of_nodes,
    reasons_of_torchdata,
    restarting,
)


class StatefulSource:
    """Something that knows its own position: used through ``state_dict`` and ``load_state_dict``.

    What it draws in this process, at its beginning and for each batch, comes from streams of their own: it
    begins again with every attempt, and would otherwise draw once more than in an undisturbed run.

    Args:
        loader: The object.
        seed: Of the session.
        suspect: Takes in a known cause of inexactness.
    """

    is_idle_at_boundary = False
    ends_with_loader = False

    def __init__(self, loader: Any, *, seed: int, suspect: Callable[[Reason], None]) -> None:
        self._loader = loader
        self._seed = seed
        self._begins_again = _begins_again(loader)
        self._at_beginning: dict[str, Any] = {}
        self._now: Mapping[str, Any] = {}
        self._memory = LoaderMemory({"loader": loader})
        self._inner = ForeignLoaders()
        for reason in reasons_of_torchdata(loader):
            suspect(reason)

    def begin(self, saved: Mapping[str, Any] | None, done: int) -> None:
        if saved is None:
            return
        self._now = saved.get("memory", {}) if done else {}
        self._memory.put_back(saved.get("memory_at_beginning" if done else "memory", {}), is_inside=done > 0)
        if done == 0 and "loader" in saved and is_used_loader_of_nodes(self._loader, saved["loader"]):
            after_pass = self._memory.saved()
            end_former_pass(self._loader, saved["loader"])
            self._memory.put_back(after_pass, is_inside=True)
            return
        if "loader" in saved and (done > 0 or not self._begins_again):
            self._loader.load_state_dict(saved["loader"])

    def generators(self) -> list[Any]:
        return list(self._memory.generators.values())

    def saved(self, done: int | None) -> dict[str, Any]:
        tree: dict[str, Any] = {"loader": self._loader.state_dict()}
        if memory := self._memory.saved():
            tree["memory"] = memory
        if done and self._at_beginning:
            tree["memory_at_beginning"] = self._at_beginning
        return tree

    def identity(self) -> str:
        dataset = getattr(self._loader, "dataset", None)
        return "|".join(
            [kind_of(type(self._loader)), kind_of(type(dataset)), str(known_length(self._loader))]
        )

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
        self._at_beginning = self._memory.saved()
        with restarting(self._loader, is_on=False) if start else contextlib.nullcontext():
            batches = in_isolation(self._loader, start, seeds, self._inner)
        self._memory.put_back(self._now, is_inside=True)
        self._now = {}
        return batches


def _begins_again(loader: Any) -> bool:
    """Tell whether each ``iter`` begins a pass, so that a state of the last one is in the way.

    Of an iterable of Hugging Face's, a state from the end of a pass means that nothing is left, also for the
    next pass. A `StatefulDataLoader` goes on after a ``break`` only if its state is loaded.
    """
    if any(kind.__module__.startswith("datasets.") for kind in type(loader).__mro__):
        return True
    is_torchdata = any(kind.__name__ == "StatefulDataLoader" for kind in type(loader).__mro__)
    return is_torchdata and not hasattr(getattr(loader, "dataset", None), "state_dict")
