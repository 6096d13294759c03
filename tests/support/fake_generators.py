"""Random generators of devices that are not there: torch's CPU generators stand for them."""

from __future__ import annotations

import torch


class FakeGenerators:
    """See the module.

    Attributes:
        generators: One for each device.
        is_initialised: Whether the program has used the devices.
    """

    def __init__(self, count: int, *, is_initialised: bool = True) -> None:
        self.generators = [torch.Generator().manual_seed(number) for number in range(count)]
        self.is_initialised = is_initialised

    def count(self) -> int:
        return len(self.generators)

    def is_in_use(self) -> bool:
        return self.is_initialised

    def state(self, device: int) -> torch.Tensor:
        return self.generators[device].get_state()

    def set_state(self, device: int, state: torch.Tensor) -> None:
        self.generators[device].set_state(state)

    def seed(self, device: int, seed: int) -> None:
        self.generators[device].manual_seed(seed)

    def draw(self) -> list[float]:
        """Draw a number on every device."""
        return [torch.rand((), generator=each).item() for each in self.generators]
