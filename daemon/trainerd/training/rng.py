"""The global random number generators: Python's, NumPy's, torch's on the CPU and on every CUDA device.

Their states are captured as plain values and tensors, so that a checkpoint holds them without pickle, and are
restored exactly. CUDA is looked at only where it is in use already: asking would otherwise initialise it.
"""

from __future__ import annotations

import contextlib
import random
import sys
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.errors import MismatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMPY_SEED_BITS: Final = 32


def capture_rng() -> dict[str, Any]:
    """Return the states of all generators as a tree of plain values and CPU tensors."""
    version, words, gauss_next = random.getstate()
    state: dict[str, Any] = {
        "python": {
            "version": version,
            "words": torch.tensor(words, dtype=torch.int64),
            "gauss_next": gauss_next,
        },
        "torch": torch.get_rng_state(),
        "cuda": [],
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
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = [torch.cuda.get_rng_state(device) for device in range(torch.cuda.device_count())]
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Put all generators into the states that `capture_rng` returned.

    Raises:
        MismatchError: There are states of CUDA devices that this machine does not have.
    """
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss_next"]))
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
    if state["cuda"]:
        restore_cuda_rng(state["cuda"])


def restore_cuda_rng(states: list[torch.Tensor]) -> None:
    """Restore the generators of the CUDA devices.

    Raises:
        MismatchError: This machine has fewer devices than there are states.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < len(states):
        raise MismatchError(
            "the checkpoint holds random states of CUDA devices that are not here",
            [f"cuda devices: checkpoint {len(states)}, here {found}"],
            hint="resume on as many devices, or load with only= the objects that you need",
        )
    for device, device_state in enumerate(states):
        torch.cuda.set_rng_state(device_state, device)


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


@contextlib.contextmanager
def isolated_cpu_generators(seed: int) -> Iterator[None]:
    """Seed the CPU generators for a block, and leave them afterwards as they were before it."""
    python, cpu = random.getstate(), torch.get_rng_state()
    numpy_state = None
    if "numpy" in sys.modules:
        import numpy as np

        numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global one is the point
    try:
        seed_cpu_generators(seed)
        yield
    finally:
        random.setstate(python)
        torch.set_rng_state(cpu)
        if numpy_state is not None:
            import numpy as np

            np.random.set_state(numpy_state)  # noqa: NPY002 - the global one is the point
