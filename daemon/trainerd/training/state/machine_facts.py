"""What of a machine decides the bits of a result: the devices that train, their number and their driver."""

from __future__ import annotations

import platform
import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch

from trainerd.training.state.tracked import Objects, unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

_DRIVER: Final = Path("/proc/driver/nvidia/version")
_VERSION: Final = re.compile(r"\b\d+\.\d+(?:\.\d+)*\b")


class Machine(Protocol):
    """The CUDA devices of a machine, as far as they are looked at without initialising them."""

    def count(self) -> int:
        """Return how many devices there are."""
        ...

    def name(self) -> str | None:
        """Return the name of the current device, None if the program has not initialised it."""
        ...

    def driver(self) -> str | None:
        """Return the version of the driver, None if it is not known."""
        ...


class CudaMachine:
    """The devices that torch sees."""

    def count(self) -> int:
        return torch.cuda.device_count() if torch.cuda.is_available() else 0

    def name(self) -> str | None:
        is_in_use = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return torch.cuda.get_device_name() if is_in_use else None

    def driver(self) -> str | None:
        return driver_version(_DRIVER)


def driver_version(path: Path) -> str | None:
    """Return the version that NVIDIA's kernel module gives in a file; None if there is no such file."""
    try:
        first = path.read_text(errors="replace").partition("\n")[0]
    except OSError:
        return None
    found = _VERSION.search(first)
    return found.group() if found is not None else None


def machine_facts(objects: Objects, machine: Machine | None = None) -> dict[str, Any]:
    """Return what is known of the machine, without initialising any device.

    Args:
        objects: What is tracked: the devices of its parameters are those that train.
        machine: The devices; None asks torch.
    """
    machine = machine or CudaMachine()
    count = machine.count()
    facts = {
        "device": machine.name() or platform.machine(),
        "device_type": " ".join(sorted(set(_device_types(objects)))) or "none",
        "device_count": count,
        "threads": torch.get_num_threads(),
    }
    if count:
        facts["driver"] = machine.driver() or "not known"
    return facts


def _device_types(objects: Objects) -> Iterator[str]:
    for value in objects.values():
        module = unwrapped(value)
        if isinstance(module, torch.nn.Module):
            for tensor in chain(module.parameters(), module.buffers()):
                yield tensor.device.type
