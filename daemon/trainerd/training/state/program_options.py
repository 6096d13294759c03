"""Options that the program gives its optimizers, schedulers and scalers, before a resume restores them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from trainerd.training.state.tracked import Objects

GROUPS: Final = "groups"
SCHEDULE: Final = "schedule"
SETTINGS: Final = "settings"

_NOT_OPTIONS: Final = frozenset(
    {"params", "param_names", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}
)
"""Entries of a parameter group that are none, or that a scheduler puts there."""
_MOVING: Final = frozenset({"last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step"})
_PLAIN: Final = (bool, int, float, str, type(None))


def program_options(objects: Objects) -> dict[str, Any]:
    """Return the options of each optimizer, scheduler and gradient scaler, by name."""
    found: dict[str, Any] = {}
    for name, value in objects.items():
        if isinstance(value, torch.optim.Optimizer):
            found[name] = {GROUPS: {str(i): _group(each) for i, each in enumerate(value.param_groups)}}
        elif isinstance(value, torch.optim.lr_scheduler.LRScheduler):
            found[name] = {SCHEDULE: _plain_part(value.state_dict())}
        elif isinstance(value, torch.amp.GradScaler):
            found[name] = {SETTINGS: _plain_part(value.state_dict())}
    return found


def _group(group: dict[str, Any]) -> dict[str, Any]:
    return _plain_part({key: value for key, value in group.items() if key not in _NOT_OPTIONS})


def _plain_part(state: dict[Any, Any]) -> dict[str, Any]:
    """Return what is plain in a state, lists and dicts in it as well."""
    found = {}
    for key, value in state.items():
        if key in _MOVING:
            continue
        plain = _plain(value)
        if plain is not None:
            found[str(key)] = plain
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.item() if value.numel() == 1 and not value.is_complex() else None
    if type(value) in _PLAIN:
        return str(value)
    if isinstance(value, list | tuple):
        if all(type(each) in _PLAIN for each in value):
            return " ".join(map(str, value)) or "none"
        return _plain_part(dict(enumerate(value)))
    return _plain_part(value) if isinstance(value, dict) else None
