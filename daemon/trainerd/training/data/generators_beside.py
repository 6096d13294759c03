"""Random generators of the script's own that training draws from, and that are in no checkpoint."""

from __future__ import annotations

import contextlib
import random
import sys
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
import xxhash

from trainerd.contract.verdict import Reason
from trainerd.training.data.exact_loader import IdleGenerator
from trainerd.training.data.found_generators import find_generators_of_functions
from trainerd.training.state.generators import generator_state, is_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainerd.training.state.caller_names import CallerNames


@dataclass(frozen=True)
class _Watched:
    """A generator: what the script calls it, where, and its state at first."""

    generator: Any
    expression: str
    where: str
    mark: str


class GeneratorsBeside:
    """Watches the generators that the script has names for, or that its functions name.

    Args:
        names: Names of the script's code, before the first step.
    """

    def __init__(self, names: CallerNames) -> None:
        self._session = names.session
        others = {id(each) for each in _global_generators()}
        self._watched = [
            _Watched(generator, expression, where, mark)
            for generator, expression, where in _generators_of(names)
            if id(generator) not in others
            and not isinstance(generator, IdleGenerator)
            and (mark := _mark_of(generator)) is not None
        ]

    def reasons(self, is_kept: Callable[[Any], bool]) -> Iterator[Reason]:
        """Yield one reason for each generator that was drawn from since, once.

        Args:
            is_kept: Tells whether a checkpoint holds the state of a generator.
        """
        drawn = [each for each in self._watched if _mark_of(each.generator) != each.mark]
        self._watched = [each for each in self._watched if each not in drawn]
        for each in drawn:
            if not is_kept(each.generator):
                word = each.expression.rpartition(".")[2]
                argument = f"{word if word.isidentifier() else 'rng'}={each.expression}"
                yield Reason(
                    "untracked-generator",
                    each.where,
                    f"training draws from {each.expression}, a random generator that is not tracked: a "
                    "resume begins with a new one",
                    f"{self._session}.track({argument})",
                )


def _generators_of(names: CallerNames) -> Iterator[tuple[Any, str, str]]:
    """Yield each generator once, with what the script calls it and where that is."""
    seen: set[int] = set()
    for known in names:
        if is_generator(known.value) and id(known.value) not in seen:
            seen.add(id(known.value))
            yield known.value, known.expression, known.where
    functions = {known.expression: known.value for known in names if isinstance(known.value, FunctionType)}
    for path, generator in find_generators_of_functions(functions).by_path.items():
        if id(generator) not in seen:
            seen.add(id(generator))
            yield generator, path.rpartition("<")[2].rstrip(">"), names.place


def _global_generators() -> Iterator[Any]:
    yield torch.default_generator
    yield from getattr(torch.cuda, "default_generators", ())
    yield getattr(random, "_inst", None)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        yield getattr(numpy.random.mtrand, "_rand", None)


def _mark_of(generator: Any) -> str | None:
    with contextlib.suppress(Exception):  # a kind of bit generator without a state that can be taken
        return xxhash.xxh3_64_hexdigest(repr(_plain(generator_state(generator))).encode())
    return None


def _plain(state: Any) -> Any:
    """Return a state with its tensors and arrays as lists: their texts leave out most of them."""
    if isinstance(state, dict):
        return {key: _plain(each) for key, each in state.items()}
    return state.tolist() if hasattr(state, "tolist") else state
