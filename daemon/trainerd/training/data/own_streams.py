"""Random streams of their own for a block of loading."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import xxhash

from trainerd.training.data.seeds import derive_seed
from trainerd.training.state.generators import generator_state, set_generator_state
from trainerd.training.state.rng import isolated_cpu_generators, seed_cpu_generators

_NUMPY_LEGACY_BITS = 32


class OwnStreams:
    """Seeds the CPU generators, and generators that were found, for a block, and puts them back after it.

    Args:
        generators: Those found, by path. Equal paths get equal streams, in this process as in a worker.
    """

    def __init__(self, generators: Mapping[str, Any]) -> None:
        self._generators = [(generator, _number(path)) for path, generator in generators.items()]
        self._former: list[Any] = []
        self._isolated: isolated_cpu_generators | None = None

    @property
    def generators(self) -> list[Any]:
        """The generators that were found."""
        return [generator for generator, _ in self._generators]

    @property
    def are_empty(self) -> bool:
        """Whether no generator was found."""
        return not self._generators

    def seed(self, seed: int) -> None:
        """Seed all of them, for good."""
        seed_cpu_generators(seed)
        self._seed_found(seed)

    def begin(self, seed: int) -> None:
        """Seed all of them until `end`."""
        self._isolated = isolated_cpu_generators(seed)
        self._isolated.__enter__()
        try:
            self._former = [generator_state(generator) for generator, _ in self._generators]
            self._seed_found(seed)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Put back what `begin` found."""
        for (generator, _), state in zip(self._generators, self._former, strict=False):
            set_generator_state(generator, state)
        self._former = []
        isolated, self._isolated = self._isolated, None
        if isolated is not None:
            isolated.__exit__()

    def _seed_found(self, seed: int) -> None:
        for generator, number in self._generators:
            seed_generator(generator, derive_seed(seed, number))


def seed_generator(generator: Any, seed: int) -> None:
    """Seed a generator in place, as one of its kind that is made from `seed`."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, random.Random):
        generator.seed(seed)
    else:
        import numpy as np

        if isinstance(generator, np.random.RandomState):
            bits = type(generator._bit_generator)(seed % (1 << _NUMPY_LEGACY_BITS))  # noqa: SLF001 - no public name
            legacy = np.random.RandomState(bits)
            generator.set_state(legacy.get_state(legacy=False))
        else:
            generator.bit_generator.state = type(generator.bit_generator)(seed).state


def states_of(generators: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of generators, by path."""
    return {path: generator_state(generator) for path, generator in generators.items()}


def put_states(
    generators: Mapping[str, Any], states: Mapping[str, Any], paths: Iterable[str] | None = None
) -> list[str]:
    """Put generators into the states that `states_of` returned, and return the paths that do not fit."""
    stuck = []
    for path in states if paths is None else paths:
        try:
            set_generator_state(generators[path], states[path])
        except (KeyError, ValueError, TypeError, RuntimeError):
            stuck.append(path)
    return stuck


def _number(path: str) -> int:
    return xxhash.xxh3_64_intdigest(path.encode("utf-8", "surrogatepass"))
