"""State that the objects of another machine have and those of this one cannot take.

A gradient scaler is disabled where there is no device, and has no state then. An optimizer that was
``capturable`` for a CUDA graph refuses to step on the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainerd.training.state.tracked import Objects, Stateful, unwrapped

if TYPE_CHECKING:
    from collections.abc import Mapping

_CAPTURABLE = "capturable"


def is_other_scaler(target: Stateful, state: Any) -> bool:
    """Return whether only one of a gradient scaler and its saved state is of an enabled one."""
    return isinstance(target, torch.amp.GradScaler) and bool(state) != target.is_enabled()


def other_scalers(objects: Objects, states: Mapping[str, Any]) -> dict[str, torch.amp.GradScaler]:
    """Return the gradient scalers that cannot take their saved state, by name."""
    found = {name: unwrapped(objects[name]) for name in states if name in objects}
    return {
        name: target
        for name, target in found.items()
        if isinstance(target, torch.amp.GradScaler) and is_other_scaler(target, states[name])
    }


def loadable_groups(target: Stateful, state: Any) -> Any:
    """Return a saved state; that of an optimizer without ``capturable`` where no device can capture.

    Args:
        target: The live object.
        state: As saved.
    """
    if not isinstance(target, torch.optim.Optimizer) or not isinstance(state, dict):
        return state
    groups = state.get("param_groups", [])
    if not any(group.get(_CAPTURABLE) for group in groups) or len(groups) != len(target.param_groups):
        return state
    return state | {
        "param_groups": [
            group | {_CAPTURABLE: False} if group.get(_CAPTURABLE) and _is_on_cpu(live) else group
            for group, live in zip(groups, target.param_groups, strict=True)
        ]
    }


def _is_on_cpu(group: dict[str, Any]) -> bool:
    return bool(group["params"]) and all(each.device.type == "cpu" for each in group["params"])
