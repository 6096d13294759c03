"""Optimizers that step for the first time after the audited step: of a critic, a frozen part, a later phase.

torch calls one hook for every step of every optimizer. The hook costs one lookup for an optimizer that is
known, and notes one that is not.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

try:
    from torch.optim.optimizer import register_optimizer_step_post_hook
except ImportError:
    register_step_hook: Any = None
else:
    register_step_hook = register_optimizer_step_post_hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch


class LaterSteps:
    """Watches for optimizers that have not stepped before, until it is closed.

    Args:
        known: Optimizers that are known already.
        note: Called at the end of the first step of each other one.

    Attributes:
        has_new: Whether `note` was called since this was last set to False.
    """

    def __init__(
        self, known: Iterable[torch.optim.Optimizer], note: Callable[[torch.optim.Optimizer], None]
    ) -> None:
        self.has_new = False
        self._note = note
        self._known: dict[int, weakref.ref[Any]] = {}
        for optimizer in known:
            self._add(optimizer)
        self._hook = None if register_step_hook is None else register_step_hook(self._stepped)

    def close(self) -> None:
        """Stop watching."""
        hook, self._hook = self._hook, None
        if hook is not None:
            hook.remove()

    def _stepped(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        if id(optimizer) in self._known:
            return
        self._add(optimizer)
        self.has_new = True
        self._note(optimizer)

    def _add(self, optimizer: torch.optim.Optimizer) -> None:
        identity = id(optimizer)
        # The identity of an optimizer that is gone may pass to the next one.
        forget = functools.partial(_forget, self._known, identity)
        self._known[identity] = weakref.ref(optimizer, forget)


def _forget(known: dict[int, weakref.ref[Any]], identity: int, _: object) -> None:
    known.pop(identity, None)
