"""Random generators as objects whose state can be taken out and put back: torch's, NumPy's and Python's."""

from __future__ import annotations

import random
import sys
from typing import Any, Final

import torch

from trainerd.checkpoint.digest import digest_of_bytes

_CPU_STATE_BYTES: Final = torch.default_generator.get_state().numel()
_SEED_BITS: Final = 63

_reseeded: Final[list[str]] = []


def is_generator(value: object) -> bool:
    """Return whether a value is a random generator whose state `generator_state` can take."""
    if isinstance(value, torch.Generator | random.Random):
        return not isinstance(value, random.SystemRandom)
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.random.Generator | numpy.random.RandomState)


def generator_state(generator: Any) -> Any:
    """Return the state of a generator as a tree of plain values and tensors."""
    if isinstance(generator, torch.Generator):
        return {"kind": "torch", "state": generator.get_state(), "device": generator.device.type}
    if isinstance(generator, random.Random):
        return {"kind": "python", **python_state_dict(generator)}
    import numpy as np

    if isinstance(generator, np.random.RandomState):
        return {"kind": "numpy-legacy", "state": generator.get_state(legacy=False)}
    return {"kind": "numpy", "state": generator.bit_generator.state}


def set_generator_state(generator: Any, state: Any) -> None:
    """Put a generator into the state that `generator_state` returned for one of its kind.

    A generator of torch on another kind of device draws from another stream and cannot take the state: it is
    seeded from it, and `take_reseeded` says so.

    Raises:
        ValueError: The state is that of a generator of another kind.
    """
    kind = state["kind"] if isinstance(state, dict) else None
    if kind != _kind_of(generator):
        raise ValueError(
            f"a {type(generator).__qualname__} does not take the state of a generator of kind {kind}"
        )
    if kind == "torch":
        _set_torch_state(generator, state)
    elif kind == "python":
        load_python_state(generator, state)
    elif kind == "numpy-legacy":
        generator.set_state(state["state"])
    else:
        generator.bit_generator.state = state["state"]


def _set_torch_state(generator: torch.Generator, state: dict[str, Any]) -> None:
    saved: torch.Tensor = state["state"]
    was, is_ = state.get("device") or _device_of(saved), generator.device.type
    if was == is_:
        generator.set_state(saved)
        return
    digest = digest_of_bytes(bytes(saved.tolist()))
    generator.manual_seed(int(digest.rpartition(":")[2], 16) & ((1 << _SEED_BITS) - 1))
    _reseeded.append(f"a generator of device {was} is one of {is_} here")


def _device_of(state: torch.Tensor) -> str:
    """Return the kind of device that a state without a note of it is of."""
    return "cpu" if state.numel() == _CPU_STATE_BYTES else "cuda"


def take_reseeded() -> list[str]:
    """Return which generators were seeded since the last call, because their state is of another device."""
    taken = list(_reseeded)
    _reseeded.clear()
    return taken


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
