"""Random generators as objects whose state can be taken out and put back: torch's, NumPy's and Python's."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


def is_generator(value: object) -> bool:
    """Return whether a value is a random generator whose state `generator_state` can take."""
    if isinstance(value, torch.Generator | random.Random):
        return not isinstance(value, random.SystemRandom)
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.random.Generator | numpy.random.RandomState)


def generator_state(generator: Any) -> Any:
    """Return the state of a generator as a tree of plain values and tensors."""
    if isinstance(generator, torch.Generator):
        return {"kind": "torch", "state": generator.get_state()}
    if isinstance(generator, random.Random):
        return {"kind": "python", **python_state_dict(generator)}
    import numpy as np

    if isinstance(generator, np.random.RandomState):
        return {"kind": "numpy-legacy", "state": generator.get_state(legacy=False)}
    return {"kind": "numpy", "state": generator.bit_generator.state}


def set_generator_state(generator: Any, state: Any) -> None:
    """Put a generator into the state that `generator_state` returned for one of its kind.

    Raises:
        ValueError: The state is that of a generator of another kind.
    """
    kind = state["kind"] if isinstance(state, dict) else None
    if kind != _kind_of(generator):
        raise ValueError(
            f"a {type(generator).__qualname__} does not take the state of a generator of kind {kind}"
        )
    if kind == "torch":
        generator.set_state(state["state"])
    elif kind == "python":
        load_python_state(generator, state)
    elif kind == "numpy-legacy":
        generator.set_state(state["state"])
    else:
        generator.bit_generator.state = state["state"]


def python_state_dict(generator: Any) -> dict[str, Any]:
    """Return the state of a `random.Random`, or of the module, as plain values and a tensor."""
    version, words, gauss_next = generator.getstate()
    return {
        "version": version,
        "words": torch.tensor(words, dtype=torch.int64),
        "gauss_next": gauss_next,
    }


def load_python_state(generator: Any, state: dict[str, Any]) -> None:
    """Put a `random.Random`, or the module, into the state that `python_state_dict` returned."""
    generator.setstate((state["version"], tuple(state["words"].tolist()), state["gauss_next"]))


def _kind_of(generator: Any) -> str:
    if isinstance(generator, torch.Generator):
        return "torch"
    if isinstance(generator, random.Random):
        return "python"
    import numpy as np

    return "numpy-legacy" if isinstance(generator, np.random.RandomState) else "numpy"


class TrackedGenerator:
    """A generator in the form in which objects are tracked."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def state_dict(self) -> Any:
        """Return the state of the generator."""
        return generator_state(self._generator)

    def load_state_dict(self, state: Any) -> None:
        """Put the generator, in place, into a former state."""
        set_generator_state(self._generator, state)
