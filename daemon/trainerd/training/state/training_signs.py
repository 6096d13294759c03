"""Whether anything of what is tracked was trained since a moment, as far as that leaves signs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainerd.training.state.audit_coverage import memory_of
from trainerd.training.state.tracked import Objects, unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

_Sign = tuple[int, int, int, int]


class TrainingSigns:
    """Versions of the tracked tensors and of their gradients at one moment.

    A step changes parameters in place, a forward in training mode the statistics of a normalisation, a
    backward the gradients, and a step that a scaler leaves out the scaler.

    Args:
        objects: What is tracked.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._before = self._now()

    @property
    def can_show(self) -> bool:
        """Whether there is anything that training would change."""
        return bool(self._before[0])

    def have_changed(self) -> bool:
        """Tell whether something was trained since."""
        return self._now() != self._before

    def _now(self) -> tuple[dict[int, _Sign], list[dict[str, Any]]]:
        scalers = [
            value.state_dict()
            for value in self._objects.values()
            if isinstance(value, torch.amp.GradScaler) and value.is_enabled()
        ]
        return {id(tensor): _sign_of(tensor) for tensor in self._tensors()}, scalers

    def _tensors(self) -> Iterator[torch.Tensor]:
        for value in self._objects.values():
            inner = unwrapped(value)
            if isinstance(inner, torch.nn.Module):
                yield from inner.parameters()
                yield from inner.buffers()
            elif isinstance(inner, torch.optim.Optimizer):
                for group in inner.param_groups:
                    yield from group["params"]


def _sign_of(tensor: torch.Tensor) -> _Sign:
    gradient = tensor.grad if tensor.is_leaf else None
    return (
        memory_of(tensor) or 0,
        _version(tensor),
        id(gradient),
        0 if gradient is None else _version(gradient),
    )


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - the only sign of a change in place
