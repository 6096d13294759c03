"""Batches of something that knows its own position."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from trainerd.contract.verdict import Reason
from trainerd.training.data.dataset_memory import FirstMarks
from trainerd.training.data.drawing import known_length
from trainerd.training.data.foreign_loaders import ForeignLoaders
from trainerd.training.data.isolation import in_isolation
from trainerd.training.data.loader_memory import LoaderMemory
from trainerd.training.data.made_late import PartsMadeLate
from trainerd.training.data.passes import SAMPLE, Pass
from trainerd.training.data.root_identity import kind_of
from trainerd.training.data.seeds import folded
from trainerd.training.data.torchdata_loaders import (
    end_former_pass,
    is_loader_of_nodes,
    is_torchdata_loader,
    is_used_loader_of_nodes,
    reasons_of_torchdata,
    restarting,
)
from trainerd.training.state.copied_state import copied_state

_NOTHING: Final = object()
_PART: Final = "loader"
_PARTS_MAX: Final = 256
_SINCE: Final = "since"
"""How many batches of the pass were done since the state of the loader that is saved."""
_ENDED: Final = "ended"
"""Whether the last pass before came to its end by itself."""


class StatefulSource:
    """Something that knows its own position: used through ``state_dict`` and ``load_state_dict``.

    What it draws in this process, at its beginning and for each batch, comes from streams of their own: it
    begins again with every attempt, and would otherwise draw once more than in an undisturbed run.

    Invariants:
        A state from within a pass is loaded only to finish that pass. What a library would begin later passes
        from as well is put back before them.

    Args:
        loader: The object.
        seed: Of the session.
        suspect: Takes in a known cause of inexactness.
        first: What there was before the first epoch.

    Attributes:
        ends_silently: See `Source`. torchdata's nodes and Hugging Face's iterables do not.
    """

    is_idle_at_boundary = False
    ends_with_loader = False
    was_there = False

    def __init__(
        self,
        loader: Any,
        *,
        seed: int,
        suspect: Callable[[Reason], None],
        first: FirstMarks | None = None,
    ) -> None:
        self._loader = loader
        self._seed = seed
        self._suspect = suspect
        self._begins_again = _begins_again(loader)
        self.ends_silently = not (self._begins_again or is_loader_of_nodes(loader))
        self._fresh: tuple[Any, Any] | None = None
        self._is_after_end = self._is_exhausted = False
        self._resumed: _Resumed | None = None
        self._at_beginning: dict[str, Any] = {}
        self._now: Mapping[str, Any] = {}
        self._memory = LoaderMemory({"loader": loader})
        self._made_late = PartsMadeLate({_PART: _with_state(loader)}, (first or FirstMarks()).parts, suspect)
        self._identity = _identity_of(loader)
        self._inner = ForeignLoaders()
        for reason in reasons_of_torchdata(loader):
            suspect(reason)

    def begin(self, saved: Mapping[str, Any] | None, done: int) -> None:
        self._is_after_end, self._resumed = False, None
        if saved is None:
            return
        has_gone_on = done > 0 or ("loader" in saved and not self._begins_again)
        if self._made_late.begin(saved, done, changed={_PART} if has_gone_on else set()):
            return
        self._now = saved.get("memory", {}) if done else {}
        self._memory.put_back(saved.get("memory_at_beginning" if done else "memory", {}), is_inside=done > 0)
        if done == 0 and "loader" in saved and is_used_loader_of_nodes(self._loader, saved["loader"]):
            after_pass = self._memory.saved()
            end_former_pass(self._loader, saved["loader"])
            self._memory.put_back(after_pass, is_inside=True)
            return
        if "loader" in saved and (done > 0 or not self._begins_again):
            iterable = _iterable_of_hugging_face(self._loader)
            if iterable is not None and self._fresh is None:
                self._fresh = (iterable, copied_state(iterable.state_dict()))
            if done and iterable is not None and _has_shuffle_buffer(iterable):
                self._suspect(
                    Reason(
                        "shuffle-buffer",
                        kind_of(type(iterable)),
                        "its state in the middle of a pass does not hold the rows in its shuffle buffer, "
                        "which may be filled with later ones",
                        "resume from the end of an epoch, or shuffle a map-style dataset",
                    )
                )
            if done and _are_states_late(self._loader):
                self._resumed = _Resumed(copied_state(saved["loader"]), done - saved.get(_SINCE, 0))
            self._loader.load_state_dict(saved["loader"])
            self._is_after_end = done == 0 and saved.get(_ENDED, False)

    def generators(self) -> list[Any]:
        return list(self._memory.generators.values())

    def saved(self, done: int | None) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        if done and self._resumed is not None and done - self._resumed.base < self._loader.num_workers:
            tree["loader"] = self._resumed.state
            if since := done - self._resumed.base:
                tree[_SINCE] = since
        elif done or not self._begins_again:
            tree["loader"] = self._loader.state_dict()
            if not done and self._is_exhausted:
                tree[_ENDED] = True
        if memory := self._memory.saved():
            tree["memory"] = memory
        if done and self._at_beginning:
            tree["memory_at_beginning"] = self._at_beginning
        return tree | self._made_late.saved(changed={_PART} if "loader" in tree else set())

    def identity(self) -> str:
        return self._identity

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
        self._made_late.pass_begins(which.place)
        seeds = folded(self._seed, SAMPLE, *which.place, which.epoch)
        if start == 0:
            self._resumed = None
            if self._fresh is not None:
                iterable, state = self._fresh
                iterable.load_state_dict(copied_state(state))
        self._at_beginning = self._memory.saved()
        first = self._resumed.base if self._resumed is not None else start
        with restarting(self._loader, is_on=False) if start else contextlib.nullcontext():
            batches = in_isolation(self._loader, first, seeds, self._inner)
        self._memory.put_back(self._now, is_inside=True)
        self._now = {}
        if self._is_after_end:
            batches = self._begun_again_if_empty(batches, seeds)
        return self._noting_end(itertools.islice(batches, start - first, None))

    def _noting_end(self, batches: Iterator[Any]) -> Iterator[Any]:
        self._is_exhausted = False
        yield from batches
        self._is_exhausted = True

    def _begun_again_if_empty(self, batches: Iterator[Any], seeds: int) -> Iterator[Any]:
        """Yield a pass that follows the loaded state of the end of the pass before.

        Some go on from there only to find nothing left, once, where an undisturbed run begins a new pass.
        """
        first = next(batches, _NOTHING)
        if first is _NOTHING:
            batches = in_isolation(self._loader, 0, seeds, self._inner)
            first = next(batches, _NOTHING)
            if first is _NOTHING:
                return
            self._suspect(
                Reason(
                    "empty-pass",
                    type(self._loader).__qualname__,
                    "had no batch after the state of the end of a pass was loaded: the next pass was begun "
                    "once more, and what it counts may be ahead",
                    "let its state at the end of a pass be that of the beginning of the next one",
                )
            )
        yield first
        yield from batches


def _identity_of(loader: Any) -> str:
    """Return what tells a loader in another attempt: classes, and plain attributes before its first pass."""
    marks = LoaderMemory({"loader": loader}, ("loader",)).identities["loader"]
    return "|".join([kind_of(type(loader)), kind_of(type(getattr(loader, "dataset", None))), marks])


@dataclass(frozen=True)
class _Resumed:
    """A state that was loaded, while what the loader says of itself is not to be relied on yet.

    Attributes:
        state: The state.
        base: How many batches of the pass were done in it.
    """

    state: Any
    base: int


def _are_states_late(loader: Any) -> bool:
    """Tell whether the state of a loader may be wrong until each of its workers has yielded a batch.

    That of torchdata has what a dataset in a worker says before its first batch. One that puts a loaded state
    into effect with its first sample, as Hugging Face's do, says then that it is fresh (torchdata 0.11).
    """
    return is_torchdata_loader(loader) and loader.num_workers > 0


def _with_state(loader: Any) -> Any:
    """Return what holds the state that goes on from pass to pass: of torchdata's loaders, their dataset."""
    return getattr(loader, "dataset", None) if is_torchdata_loader(loader) else loader


def _iterable_of_hugging_face(loader: Any) -> Any:
    """Return the iterable of Hugging Face's that this is, or is a torchdata loader over; None if neither.

    It begins every later pass of an epoch from the state that was loaded, too.
    """
    if _is_of_hugging_face(loader):
        return loader
    dataset = getattr(loader, "dataset", None)
    return dataset if is_torchdata_loader(loader) and _is_of_hugging_face(dataset) else None


def _has_shuffle_buffer(iterable: Any) -> bool:
    """Tell whether an iterable of Hugging Face's, or what it draws from, shuffles in a buffer."""
    parts, seen = [getattr(iterable, "_ex_iterable", None)], 0
    while parts and seen < _PARTS_MAX:
        part, seen = parts.pop(), seen + 1
        if type(part).__name__ == "BufferShuffledExamplesIterable":
            return True
        parts += [getattr(part, "ex_iterable", None), *(getattr(part, "ex_iterables", None) or ())]
    return False


def _is_of_hugging_face(value: Any) -> bool:
    return any(kind.__module__.startswith("datasets.") for kind in type(value).__mro__)


def _begins_again(loader: Any) -> bool:
    """Tell whether each ``iter`` begins a pass, so that a state of the last one is in the way.

    Of an iterable of Hugging Face's, a state from the end of a pass means that nothing is left, also for the
    next pass. A `StatefulDataLoader` goes on after a ``break`` only if its state is loaded.
    """
    if _iterable_of_hugging_face(loader) is not None:
        return True
    return is_torchdata_loader(loader) and not hasattr(getattr(loader, "dataset", None), "state_dict")
