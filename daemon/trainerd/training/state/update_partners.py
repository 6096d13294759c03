"""What an update is made of: some elements of a parameter, before and after, and of its gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from trainerd.training.state.combinations import missed_by, on_host, rounding_of

_ELEMENTS_MAX: Final = 1024


@dataclass
class UpdatePartner:
    """A parameter: what it was at the first boundary, and the gradients that have arrived since."""

    parameter: torch.Tensor
    former: torch.Tensor
    is_stepped: bool
    former_gradient: torch.Tensor | None = None
    arrived: torch.Tensor | None = None
    handle: Any = None

    @classmethod
    def watching(cls, parameter: torch.Tensor, *, is_stepped: bool) -> UpdatePartner:
        """Return a partner that adds up the gradients that arrive from now on, until it is closed.

        Args:
            parameter: A leaf that is trained.
            is_stepped: Whether a tracked optimizer steps it.
        """
        partner = cls(parameter, on_host(sampled(parameter)), is_stepped, gradient_of(parameter))

        def arrives(gradient: torch.Tensor) -> None:
            if type(gradient) is torch.Tensor and gradient.layout is torch.strided:
                new = sampled(gradient).clone()
                partner.arrived = new if partner.arrived is None else partner.arrived + new

        partner.handle = parameter.register_hook(arrives)  # type: ignore[no-untyped-call]
        return partner

    def close(self) -> None:
        """Look at no more gradients."""
        handle, self.handle = self.handle, None
        if handle is not None:
            handle.remove()

    def families(self) -> list[list[torch.Tensor]]:
        """Return what an update may be made of: gradients, their squares, and the parameter before or after.

        Before and after are no family together: their difference is the step, which a momentum is too. If
        a tracked optimizer has state for the parameter, the step is that one's.
        """
        gradients = [] if self.arrived is None else [on_host(self.arrived)]
        kept = gradient_of(self.parameter)
        if kept is not None and (not gradients or self._is_of_backward(kept, gradients[0])):
            gradients.append(kept)
        now = on_host(sampled(self.parameter))
        common = [*gradients, *map(torch.square, gradients)]
        return [[*common, self.former, *([now] if self.is_stepped else [])], [*common, now]]

    def _is_of_backward(self, kept: torch.Tensor, arrived: torch.Tensor) -> bool:
        """Tell whether a gradient is what has arrived, and not what the script has put in its place."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return True  # the gradients of all ranks together
        former = self.former_gradient
        rounding = rounding_of(self.parameter.dtype)
        sums = [arrived] if former is None else [arrived, arrived + former]
        return min(missed_by(kept, [each]) for each in sums) <= rounding * float(kept.norm())


def sampled(tensor: torch.Tensor) -> torch.Tensor:
    """Return some of the elements, from the first to the last."""
    flat = tensor.detach().reshape(-1)
    return flat[:: -(-flat.numel() // _ELEMENTS_MAX)]


def gradient_of(parameter: torch.Tensor) -> torch.Tensor | None:
    """Return the same elements of the gradient, on the host; None if there is none, or no dense one."""
    gradient = parameter.grad
    is_plain = type(gradient) is torch.Tensor and gradient.layout is torch.strided
    return on_host(sampled(gradient)) if is_plain and gradient is not None else None
