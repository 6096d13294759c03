"""With which gradients each optimizer has stepped, seen at a few of its parameters."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.training.state.optimizer_names import groups_sign

if TYPE_CHECKING:
    from collections.abc import Iterable

SAMPLES_MAX: Final = 8
"""At so many parameters of an optimizer it is seen whether its last step used the gradients that it has."""

_Groups = list[tuple[int, int]]
"""Identity and length of the list of parameters of each group: sampled again if these are other ones."""


class UsedGradients:
    """The gradients of the last step of each optimizer: which objects they were, and in which version.

    It holds none of them: a gradient that the loop lets go is gone.
    """

    def __init__(self) -> None:
        self._used: dict[int, tuple[weakref.ref[torch.Tensor], int] | None] = {}
        self._samples: weakref.WeakKeyDictionary[Any, tuple[_Groups, list[torch.Tensor]]] = (
            weakref.WeakKeyDictionary()
        )

    def are_of_other_groups(self, optimizer: torch.optim.Optimizer) -> bool:
        """Choose samples if there are none; return whether the groups are others than in the step before."""
        groups, samples = self._samples.get(optimizer, ([], []))
        now = groups_sign(optimizer)
        if groups != now or not samples:
            self._samples[optimizer] = now, _samples_of(optimizer)
        return groups != now

    def note(self, optimizer: torch.optim.Optimizer) -> None:
        """Take in that an optimizer has stepped with what its parameters have now."""
        used = self._used
        for parameter in self._samples[optimizer][1]:
            gradient = parameter.grad
            used[id(parameter)] = None if gradient is None else (weakref.ref(gradient), _version(gradient))

    def are_other_objects(self, optimizer: torch.optim.Optimizer) -> bool | None:
        """Return whether the gradients are other objects than in the last step; None where nothing tells."""
        for parameter in self._samples[optimizer][1]:
            before, gradient = self._used.get(id(parameter)), parameter.grad
            if before is not None and gradient is not None and type(gradient) is not torch.Tensor:
                return before[0]() is not gradient
        return None

    def by_last_step(self, parameters: Iterable[torch.Tensor]) -> bool:
        """Return whether an optimizer has stepped with just the gradients that these have."""
        is_known = False
        for parameter in parameters:
            if (identity := id(parameter)) not in self._used:
                continue
            is_known = True
            used, gradient = self._used[identity], parameter.grad
            if gradient is None or used is None:
                if gradient is not None:
                    return False
            elif used[0]() is not gradient or used[1] != _version(gradient):
                return False
        return is_known

    def forget(self) -> None:
        """Know of no step any more."""
        self._used = {}


def _samples_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return a few parameters that have gradients, from the first to the last."""
    with_gradients = [
        each for group in optimizer.param_groups for each in group["params"] if each.grad is not None
    ]
    count = len(with_gradients)
    if count <= SAMPLES_MAX:
        return with_gradients
    return [with_gradients[number * (count - 1) // (SAMPLES_MAX - 1)] for number in range(SAMPLES_MAX)]


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - the only sign of a change in place
