"""Optimizers of torch.distributed that wrap another optimizer: the inner optimizer is tracked.

`ZeroRedundancyOptimizer` gives the state of all ranks to one, by collectives, and to the others an error. Its
inner optimizer holds what this rank updates. `PostLocalSGDOptimizer` adds a count of steps to an optimizer.

Invariants:
    The learning rate and the like are the wrapper's: a scheduler changes them there, and each step of a
    `ZeroRedundancyOptimizer` copies them inwards. So they are copied inwards before the state is taken and
    outwards after it was put back.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import torch

from trainerd.errors import UserError
from trainerd.training.state.live_objects import live_instances

_ZERO: Final = ("torch.distributed.optim.zero_redundancy_optimizer", "ZeroRedundancyOptimizer")
_LOCAL_SGD: Final = ("torch.distributed.optim.post_localSGD_optimizer", "PostLocalSGDOptimizer")
AVERAGER_STEP: Final = "averager_step"


class OptimizerWrapper:
    """A wrapper around a tracked optimizer.

    Args:
        outer: The wrapper.
    """

    def __init__(self, outer: Any) -> None:
        self.outer = outer

    @property
    def is_spread(self) -> bool:
        """Whether each rank holds the state of other parameters."""
        return _is_a(self.outer, _ZERO)

    def changes(self) -> dict[str, Any]:
        """Make the inner optimizer complete, and return what it does not hold."""
        _copy_groups(self.outer, self.outer.optim)
        averager = getattr(self.outer, "averager", None)
        return {} if averager is None else {AVERAGER_STEP: averager.step}

    def put_back(self, changes: dict[str, Any]) -> None:
        """Make the wrapper agree with its inner optimizer, which was restored."""
        _copy_groups(self.outer.optim, self.outer)
        if AVERAGER_STEP in changes:
            self.outer.averager.step = changes[AVERAGER_STEP]


def wrapper_of(name: str, value: object) -> OptimizerWrapper | None:
    """Return the wrapper that a value is, or that it is the inner optimizer of; None if there is none.

    Raises:
        UserError: It makes its inner optimizer later.
    """
    if _is_a(value, _ZERO) or _is_a(value, _LOCAL_SGD):
        if not isinstance(getattr(value, "optim", None), torch.optim.Optimizer):
            raise UserError(
                f"cannot track {name}: this {type(value).__qualname__} makes its optimizer during training",
                hint="make it with overlap_with_ddp=False",
            )
        return OptimizerWrapper(value)
    if isinstance(value, torch.optim.Optimizer) and any(
        module in sys.modules for module, _ in (_ZERO, _LOCAL_SGD)
    ):
        for each in live_instances(lambda kind: _is_kind(kind, _ZERO) or _is_kind(kind, _LOCAL_SGD)):
            if getattr(each, "optim", None) is value:
                return OptimizerWrapper(each)
    return None


def _is_a(value: object, which: tuple[str, str]) -> bool:
    return _is_kind(type(value), which)


def _is_kind(kind: type, which: tuple[str, str]) -> bool:
    wrapper = getattr(sys.modules.get(which[0]), which[1], None)
    return isinstance(wrapper, type) and issubclass(kind, wrapper)


def _copy_groups(source: Any, target: Any) -> None:
    """Copy the learning rate and the like of each parameter group."""
    for said, group in zip(source.param_groups, target.param_groups, strict=True):
        if said is not group:
            group.update({key: value for key, value in said.items() if key != "params"})
