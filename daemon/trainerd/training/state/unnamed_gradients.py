"""Gradients that add up at parameters which are not tracked and for which the user's code has no name.

They cannot be kept, for a resumed program could not be told where they belong. That they are added to is seen
when the next one arrives.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Final

import torch

from trainerd.contract.verdict import Reason
from trainerd.training.state.live_objects import instances_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_WATCHED_MAX: Final = 512
"""So many parameters are watched: the smallest ones."""


class UnnamedGradients:
    """Watches such parameters until one has shown that its gradient is added to.

    Args:
        suspect: Takes in that one was.
    """

    def __init__(self, suspect: Callable[[Reason], None]) -> None:
        self._suspect = suspect
        self._is_over = False

    def ask(self, kept: Collection[int], place: str) -> None:
        """Watch all that have a gradient now.

        Args:
            kept: Identities of the parameters whose gradients are kept where that is needed.
            place: Where the loop is, for messages.
        """
        others = [
            each
            for each in instances_of(torch.nn.Parameter)
            if id(each) not in kept and each.requires_grad and each.grad is not None and each.numel()
        ]
        for each in sorted(others, key=torch.Tensor.numel)[:_WATCHED_MAX]:
            watch_arrival(each, functools.partial(self._arrived, weakref.ref(each), place))

    def close(self) -> None:
        """Tell of none any more."""
        self._is_over = True

    def _arrived(self, reference: weakref.ref[torch.Tensor], place: str) -> None:
        parameter = reference()
        if self._is_over or parameter is None or not is_other_than_zero([parameter.grad]):
            return
        self._is_over = True
        self._suspect(
            Reason(
                "gradients-not-kept",
                place,
                f"each step adds to the gradient of a parameter of shape {list(parameter.shape)} that is "
                "not tracked: no checkpoint has it, and where norms are clipped it counts",
                "freeze what is not trained, with requires_grad_(False), or track it",
            )
        )


def watch_arrival(parameter: torch.Tensor, arrived: Callable[[], None]) -> None:
    """Call a function before the next gradient is added to that of a parameter, once."""

    def arrives(_gradient: torch.Tensor) -> None:
        handle.remove()
        arrived()

    handle = parameter.register_hook(arrives)  # type: ignore[no-untyped-call]


def is_other_than_zero(gradients: list[torch.Tensor | None]) -> bool:
    """Return whether one of these has an element other than zero. A device is asked once."""
    found: dict[torch.device, list[torch.Tensor]] = {}
    for each in gradients:
        if each is None or not each.numel():
            continue
        if type(each) is not torch.Tensor or each.layout is not torch.strided:
            return True
        found.setdefault(each.device, []).append(each.detach().count_nonzero())
    return any(bool(torch.stack(counts).any()) for counts in found.values())
