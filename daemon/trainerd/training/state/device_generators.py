"""The random generators of CUDA devices: taken, and put back on any number of devices.

A checkpoint may come from a machine with more devices, fewer or none. The generators that both have are put
back exactly. The others are seeded from the run's seed and from where the run is, so that two resumes from
the same checkpoint draw the same numbers; they are not those that the first machine would have drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import torch

from trainerd.contract.counted import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class DeviceGenerators(Protocol):
    """The generators of all devices of a machine."""

    def count(self) -> int:
        """Return how many devices there are, without initialising them."""
        ...

    def is_in_use(self) -> bool:
        """Return whether the program has initialised the devices."""
        ...

    def state(self, device: int) -> torch.Tensor:
        """Return the state of one generator as a tensor on the CPU."""
        ...

    def set_state(self, device: int, state: torch.Tensor) -> None:
        """Put one generator into a former state."""
        ...

    def seed(self, device: int, seed: int) -> None:
        """Seed one generator."""
        ...


class CudaGenerators:
    """The generators of the CUDA devices, through torch."""

    def count(self) -> int:
        return torch.cuda.device_count() if torch.cuda.is_available() else 0

    def is_in_use(self) -> bool:
        return torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]

    def state(self, device: int) -> torch.Tensor:
        return torch.cuda.get_rng_state(device)

    def set_state(self, device: int, state: torch.Tensor) -> None:
        torch.cuda.set_rng_state(state, device)

    def seed(self, device: int, seed: int) -> None:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # makes no context on any device
        torch.cuda.default_generators[device].manual_seed(seed)


CUDA_GENERATORS: Final = CudaGenerators()


class SeededGenerators(NamedTuple):
    """What could not be put back.

    Attributes:
        saved: How many devices had a generator in the checkpoint.
        here: How many devices this machine has.
    """

    saved: int
    here: int

    def __str__(self) -> str:
        kept = min(self.saved, self.here)
        restored = f"{kept} restored" if kept else "none restored"
        if self.here > self.saved:
            others = self.here - self.saved
            return (
                f"the checkpoint holds the states of {_generators(self.saved)} and {_devices(self.here)} "
                f"here: {restored}, {others} seeded from the run's seed"
            )
        elsewhere = "what is random there" if kept else "what was random on a device"
        return (
            f"the checkpoint holds the states of {_generators(self.saved)} and {_devices(self.here)} here: "
            f"{restored}; {elsewhere} draws other numbers from here on"
        )


def _generators(count: int) -> str:
    return counted(count, "CUDA generator") if count else "no CUDA generator"


def _devices(count: int) -> str:
    return counted(count, "device is", "devices are") if count else "no device is"


def device_states(devices: DeviceGenerators) -> list[torch.Tensor]:
    """Return the states of all generators; none if the program has not initialised the devices."""
    return [devices.state(device) for device in range(devices.count())] if devices.is_in_use() else []


def put_back_states(
    states: Sequence[torch.Tensor], devices: DeviceGenerators, *, seed_of: Callable[[int], int]
) -> SeededGenerators | None:
    """Put back the generators that exist here, and seed the others.

    Devices that neither the checkpoint nor the program has used are left alone.

    Args:
        states: Of the checkpoint, by number of the device.
        devices: Of this machine.
        seed_of: Returns the seed of a device that the checkpoint has no state of, given its number.

    Returns:
        What could not be put back; None if all was.
    """
    if not states and not devices.is_in_use():
        return None
    here = devices.count()
    for device, state in enumerate(states[:here]):
        devices.set_state(device, state)
    for device in range(len(states), here):
        devices.seed(device, seed_of(device))
    return None if len(states) == here else SeededGenerators(len(states), here)
