"""Caches that reading samples fills, and whether random numbers are in what they keep.

An ``lru_cache`` around a read, a dict of samples by index: an attempt begins with an empty one. What depends
on the index alone is read again, and nothing is lost. What was drawn is drawn again, with other values.

Invariants:
    A cache is judged while reading fills it. Most batches of an attempt cost nothing: see `ReadCaches`.
    What a checkpoint holds, as it does small dicts, does not count.
"""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from typing import Any, Final, NamedTuple

import torch

from trainerd.contract.counted import counted
from trainerd.contract.verdict import Reason
from trainerd.training.data.attribute_marks import is_small, mark_of
from trainerd.training.data.code_variables import CodeVariables
from trainerd.training.data.dataset_memory import owners_of
from trainerd.training.data.draw_watch import DrawWatch, positions_of
from trainerd.training.state.caller_names import place_of_code

KIND: Final = "random-cache"
_WATCHED: Final = 4
"""So many batches are watched call by call, and again when a cache begins to grow that was not judged."""
_ELEMENTS_MAX: Final = 64
_CONTAINERS: Final = (MutableMapping, list, set, deque)


class LostCache(NamedTuple):
    """A cache with random values that no checkpoint holds.

    Attributes:
        path: Where it hangs.
        where: That, or the file, line and name of the function that it is around.
        detail: What is lost.
        hint: What to do about it.
    """

    path: str
    where: str
    detail: str
    hint: str

    @property
    def reason(self) -> Reason:
        """The reason for which a resume is not exact."""
        return Reason(KIND, self.where, self.detail, self.hint)


class ReadCaches:
    """The caches below a dataset and a collate function, in the process that reads samples.

    Args:
        roots: The dataset and the collate function, by name.
        are_kept: Whether the caches live on from pass to pass. If not, only one that was read from counts.
        of_functions: Whether only cached functions count: the containers of a sampler are saved.
    """

    def __init__(
        self,
        roots: Mapping[str, Any],
        *,
        are_kept: bool = True,
        of_functions: bool = False,
    ) -> None:
        self._of_functions = of_functions
        self._roots = dict(roots)
        self._are_kept = are_kept
        self._batches = 0
        self._samples = 0
        self._left = _WATCHED
        self._sizes: dict[str, int] = {}
        self._judged: dict[str, bool] = {}

    @contextlib.contextmanager
    def reading(self, samples: int, generators: list[Any]) -> Iterator[None]:
        """Watch what reading a batch keeps, if this is one of the batches to watch.

        Args:
            samples: How many it has.
            generators: What reading draws from, besides the global generators. All are seeded for it already.
        """
        self._batches += 1
        self._samples += samples
        is_watched = self._left > 0
        if not is_watched and self._batches & (self._batches - 1):
            yield
            return
        caches = dict(self._found())
        before = {path: _size(cache) for path, cache in caches.items()}
        if not is_watched or (self._of_functions and not caches):
            yield
        else:
            self._left -= 1
            yield from self._watched(caches, before, generators)
        after = {path: _size(cache) for path, cache in self._found()}
        grown = {path for path, size in after.items() if size > self._sizes.get(path, before.get(path, 0))}
        self._sizes = after
        if not is_watched and not grown <= self._judged.keys():
            self._left = _WATCHED

    def lost(self, captured: Collection[str] = ()) -> Iterator[LostCache]:
        """Yield the caches that hold random values now, but for those at these paths."""
        judged = {path for path, is_random in self._judged.items() if is_random} - set(captured)
        for path, cache in self._found() if judged else ():
            if path in judged and _size(cache) and (self._are_kept or self._is_reused(cache)):
                yield _lost(path, cache)

    def _watched(
        self, caches: dict[str, Any], before: dict[str, int], generators: list[Any]
    ) -> Iterator[None]:
        first, arrays = positions_of(generators), self._arrays()
        watch = DrawWatch(caches, _size, generators)
        with watch:
            yield
        has_drawn = positions_of(generators) != first
        for path, cache in self._found():
            if _size(cache) > before.get(path, 0):
                # Of one that was made in this batch, or under another profiler, the whole batch decides.
                self._judge(path, is_random=watch.judged.get(path, has_drawn))
        for path, mark in self._arrays().items():
            if mark != arrays.get(path, mark):
                self._judge(path, is_random=has_drawn)

    def _judge(self, path: str, *, is_random: bool) -> None:
        self._judged[path] = self._judged.get(path, False) or is_random

    def _arrays(self) -> dict[str, str]:
        """Return the marks of arrays that are too large to be saved with each change, as of all samples."""
        found = self._found()
        return {path: mark_of(value) for path, value in found if _is_array(value) and not is_small(value)}

    def _found(self) -> Iterator[tuple[str, Any]]:
        for path, cache in _caches_below(self._roots):
            if isinstance(cache, functools._lru_cache_wrapper) or not self._of_functions:  # noqa: SLF001 - see below
                yield path, cache

    def _is_reused(self, cache: Any) -> bool:
        if isinstance(cache, functools._lru_cache_wrapper):  # noqa: SLF001 - it has no public name
            return cache.cache_info().hits > 0
        return len(cache) < self._samples


def _lost(path: str, cache: Any) -> LostCache:
    function = getattr(cache, "__wrapped__", None)
    if function is None:
        return LostCache(
            path,
            path,
            "reading samples keeps values here for which random numbers were drawn, too large for a "
            "checkpoint or of a kind that it cannot hold: after a resume they are drawn again, with other "
            "values",
            "keep what was read before anything is drawn for it, and draw each time",
        )
    inner = getattr(function, "__func__", function)
    name = getattr(inner, "__qualname__", "a function")
    code = getattr(inner, "__code__", None)
    return LostCache(
        path,
        f"{place_of_code(code)} ({name})" if code is not None else path,
        f"functools.lru_cache keeps {counted(_size(cache), 'result')} of {name}, which draws random numbers, "
        "and no checkpoint holds them: after a resume they are drawn again, with other values",
        "draw outside of the cached function, or cache what it reads in a function that draws nothing",
    )


def _size(cache: Any) -> int:
    if isinstance(cache, functools._lru_cache_wrapper):  # noqa: SLF001 - see above
        return cache.cache_info().currsize
    return len(cache)


def _is_array(value: Any) -> bool:
    kind = type(value)
    is_array = kind is torch.Tensor or (kind.__module__ == "numpy" and kind.__name__ == "ndarray")
    return is_array and value.ndim > 0


def _caches_below(roots: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the containers, arrays and cached functions that loading may fill, each once, with its path."""
    seen: set[int] = set()
    for path, owner in owners_of(roots):
        values = owner.everything() if isinstance(owner, CodeVariables) else vars(owner)
        for name, value in list(values.items()):
            for part, cache in _caches_in(f"{path}.{name}", value):
                if id(cache) not in seen:
                    seen.add(id(cache))
                    yield part, cache


def _caches_in(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    plain = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    if isinstance(plain, functools._lru_cache_wrapper) or _is_array(plain):  # noqa: SLF001 - see above
        yield path, plain
    elif isinstance(plain, _CONTAINERS) and not path.endswith("__"):
        yield path, plain
        if type(plain) is list and len(plain) <= _ELEMENTS_MAX:
            for number, each in enumerate(plain):
                if isinstance(each, functools._lru_cache_wrapper):  # noqa: SLF001 - see above
                    yield f"{path}[{number}]", each
