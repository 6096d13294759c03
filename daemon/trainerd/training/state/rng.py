"""The global random number generators: Python's, NumPy's, torch's on the CPU and on every CUDA device.

Their states are captured as plain values and tensors, so that a checkpoint holds them without pickle, and are
restored exactly. CUDA is looked at only where it is in use already: asking would otherwise initialise it. A
checkpoint of another machine may hold the states of more devices or fewer; see `device_generators`.
"""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.training.state.device_generators import (
    CUDA_GENERATORS,
    DeviceGenerators,
    SeededGenerators,
    device_states,
    put_back_states,
)
from trainerd.training.state.generator_memory import numpy_state, python_state
from trainerd.training.state.generators import load_python_state, python_state_dict

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMPY_SEED_BITS: Final = 32


def capture_rng(devices: DeviceGenerators = CUDA_GENERATORS) -> dict[str, Any]:
    """Return the states of all generators as a tree of plain values and CPU tensors."""
    state: dict[str, Any] = {
        "python": python_state_dict(random),
        "torch": torch.get_rng_state(),
        "cuda": device_states(devices),
    }
    if "numpy" in sys.modules:
        import numpy as np

        legacy: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002 - the global one is the point
        state["numpy"] = {
            "bit_generator": legacy["bit_generator"],
            "key": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
            "pos": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        }
    return state


def restore_rng(
    state: dict[str, Any],
    devices: DeviceGenerators = CUDA_GENERATORS,
    *,
    seed_of: Callable[[int], int] = lambda device: device,
) -> SeededGenerators | None:
    """Put all generators into the states that `capture_rng` returned.

    Args:
        state: Of this machine or of another machine.
        devices: Devices of this machine.
        seed_of: Returns the seed of a device of which there is no state, given its number.

    Returns:
        What could not be put back, because the devices are others; None if all was.
    """
    load_python_state(random, state["python"])
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        import numpy as np

        saved = state["numpy"]
        np.random.set_state(  # noqa: NPY002 - the global one is the point
            {
                "bit_generator": saved["bit_generator"],
                "state": {"key": saved["key"].numpy().astype(np.uint32), "pos": saved["pos"]},
                "has_gauss": saved["has_gauss"],
                "gauss": saved["gauss"],
            }
        )
    return put_back_states(state["cuda"], devices, seed_of=seed_of)


def seed_everything(seed: int) -> None:
    """Seed all generators, CUDA's lazily: torch remembers the seed until it is initialised."""
    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        import numpy as np

        np.random.seed(seed % (1 << _NUMPY_SEED_BITS))  # noqa: NPY002 - the global one is the point


def seed_cpu_generators(seed: int) -> None:
    """Seed Python's, NumPy's and torch's CPU generator: what the code of a dataset draws from."""
    random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if "numpy" in sys.modules:
        import numpy as np

        np.random.seed(seed % (1 << _NUMPY_SEED_BITS))  # noqa: NPY002 - the global one is the point


class isolated_cpu_generators:  # noqa: N801 - used as a function, and entered for every batch: a generator costs more
    """Seed the CPU generators for a block, and restore them afterwards."""

    __slots__ = ("_cpu", "_numpy", "_numpy_state", "_python", "_python_state", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        self._python = python_state()
        self._python_state = self._python.saved()
        self._cpu = torch.default_generator.get_state()
        self._numpy = numpy_state() if "numpy" in sys.modules else None
        self._numpy_state = self._numpy.saved() if self._numpy is not None else None
        try:
            seed_cpu_generators(self._seed)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._python.put_back(self._python_state)
        torch.default_generator.set_state(self._cpu)
        if self._numpy is not None:
            self._numpy.put_back(self._numpy_state)
