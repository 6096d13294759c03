"""Tells, call by call, whether random numbers were drawn for what a cache takes in while samples are read."""

from __future__ import annotations

import pickle
import random
import sys
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.training.data.found_generators import is_library
from trainerd.training.state.generators import generator_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import CodeType, FrameType, TracebackType

_ENTERS: Final = "call"
_LEAVES: Final = "return"


def positions_of(generators: list[Any]) -> bytes:
    """Return where generators are, those given and the global ones of the CPU."""
    found = [torch.default_generator.get_state().numpy().tobytes(), random.getstate()]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        found.append(numpy.random.get_state(legacy=False))
    return pickle.dumps([found, [_plain(generator) for generator in generators]])


def _plain(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state().numpy().tobytes()
    return generator_state(generator)


class DrawWatch:
    """Watches the calls of a block in which samples are read.

    A function that is cached counts by what was drawn within its call. A container counts by what was drawn
    since the code of the script was called that reads the sample, when it is found to have grown: that is at
    the next call, and so before anything else is drawn.

    While another profiler is running nothing is watched.

    Args:
        caches: The caches, by path.
        size: Returns the size of one.
        generators: What reading draws from, besides the global generators.

    Attributes:
        judged: Whether random numbers were drawn for what each cache took in, by path; those that grew.
    """

    def __init__(self, caches: Mapping[str, Any], size: Callable[[Any], int], generators: list[Any]) -> None:
        self.judged: dict[str, bool] = {}
        self._functions: dict[CodeType, str] = {}
        self._paths: list[str] = []
        self._containers: list[Any] = []
        for path, cache in caches.items():
            function = getattr(cache, "__wrapped__", None)
            code = getattr(getattr(function, "__func__", function), "__code__", None)
            if code is not None:
                self._functions[code] = path
            else:
                self._paths.append(path)
                self._containers.append(cache)
        self._size = size
        self._sizes = self._measured()
        self._generators = generators
        self._depth = 0
        self._first = b""
        self._calls: list[bytes] = []
        self._is_on = False

    def __enter__(self) -> None:
        if sys.getprofile() is None:
            self._is_on = True
            sys.setprofile(self._note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_on:
            sys.setprofile(None)
            self._look()

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        if self._measured() != self._sizes:
            self._look()
        if event not in {_ENTERS, _LEAVES} or is_library(frame.f_globals.get("__name__")):
            return
        if event == _ENTERS:
            if self._depth == 0:
                self._first = positions_of(self._generators)
            self._depth += 1
            if frame.f_code in self._functions:
                self._calls.append(positions_of(self._generators))
            return
        self._depth = max(self._depth - 1, 0)
        path = self._functions.get(frame.f_code)
        if path is not None and self._calls:
            self._judge(path, self._calls.pop())

    def _look(self) -> None:
        """Judge the containers that have grown."""
        sizes = self._measured()
        for path, now, before in zip(self._paths, sizes, self._sizes, strict=True):
            if now > before:
                self._judge(path, self._first)
        self._sizes = sizes

    def _judge(self, path: str, first: bytes) -> None:
        has_drawn = positions_of(self._generators) != first
        self.judged[path] = self.judged.get(path, False) or has_drawn

    def _measured(self) -> list[int]:
        return list(map(self._size, self._containers))
