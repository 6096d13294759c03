"""Gradients that are accumulated over several boundaries, as state of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class KeptGradients:
    """The gradients of optimizers, kept in a checkpoint where they are needed after it.

    Tracked like any other object. A parameter without a gradient comes back without one.

    Args:
        optimizers: Whose parameters.
        is_needed: Tells whether the step that is in progress goes on after this boundary. Gradients that the
            next step clears first need no room.
    """

    def __init__(
        self, optimizers: Sequence[torch.optim.Optimizer], is_needed: Callable[[], bool] = lambda: True
    ) -> None:
        self._optimizers = tuple(optimizers)
        self._is_needed = is_needed

    def state_dict(self) -> dict[str, Any]:
        """Return the gradients by the number of the optimizer, the group and the parameter."""
        if not self._is_needed():
            return {}
        return {
            place: parameter.grad.detach()
            for place, parameter in self._parameters()
            if parameter.grad is not None
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the gradients back."""
        for place, parameter in self._parameters():
            saved = state.get(place)
            parameter.grad = None if saved is None else saved.to(parameter.device).clone()

    def _parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        for number, optimizer in enumerate(self._optimizers):
            for group, entries in enumerate(optimizer.param_groups):
                for index, parameter in enumerate(entries["params"]):
                    yield f"{number}.{group}.{index}", parameter
