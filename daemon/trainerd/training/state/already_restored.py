"""Whether an object holds a saved state already, so that to load it again would change nothing.

After a resume inside an epoch all state is put back twice, and mostly nothing has changed in between. To
compare tensors reads them; to load those of an optimizer makes new ones. Whatever is not certain is loaded.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from trainerd.training.state.tree_difference import first_difference

_MODULE_METHODS: Final = ("state_dict", "load_state_dict", "get_extra_state", "set_extra_state")
_MODULE_HOOKS: Final = (
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_PART_METHODS: Final = ("_save_to_state_dict", "_load_from_state_dict")
_OPTIMIZER_METHODS: Final = ("state_dict", "load_state_dict", "__setstate__")
_OPTIMIZER_HOOKS: Final = (
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)
_PLAIN_TENSORS: Final = frozenset({torch.Tensor, torch.nn.Parameter})


def is_already_restored(target: Any, state: Any) -> bool:
    """Tell whether to load a state into an object would change nothing that can be seen.

    That is said only of modules and optimizers that torch's own code saves and loads, and of plain tensors
    in the memory of the host that are equal bit for bit and lie in memory in the same order.

    Args:
        target: The live object.
        state: The state as it would be loaded.
    """
    if isinstance(target, torch.nn.Module) and all(map(_is_plain_module, target.modules())):
        live = target.state_dict(keep_vars=True)
    elif isinstance(target, torch.optim.Optimizer) and _is_plain_optimizer(target):
        live = target.state_dict()
    else:
        return False
    return _lie_alike(state, live) and first_difference(state, live, "") is None


def _is_plain_module(module: torch.nn.Module) -> bool:
    kind = type(module)
    return (
        all(getattr(kind, name) is getattr(torch.nn.Module, name) for name in _MODULE_METHODS)
        and all(_is_of_torch(kind, name) for name in _PART_METHODS)
        and vars(module).keys().isdisjoint((*_MODULE_METHODS, *_PART_METHODS))
        and all(_is_empty(module, name) for name in _MODULE_HOOKS)
    )


def _is_plain_optimizer(optimizer: torch.optim.Optimizer) -> bool:
    kind, plain = type(optimizer), torch.optim.Optimizer
    return (
        kind.load_state_dict is plain.load_state_dict
        and kind.state_dict is plain.state_dict
        and all(_is_of_torch(kind, name) for name in _OPTIMIZER_METHODS)
        and vars(optimizer).keys().isdisjoint(_OPTIMIZER_METHODS)
        and all(_is_empty(optimizer, name) for name in _OPTIMIZER_HOOKS)
    )


def _is_of_torch(kind: type, name: str) -> bool:
    """Tell whether a method is torch's own, or a wrapper that says so."""
    module = getattr(getattr(kind, name, None), "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] == "torch"


def _is_empty(value: Any, name: str) -> bool:
    """Tell whether there are no hooks of a name; where torch has none of that name, the answer is no."""
    hooks = getattr(value, name, None)
    return hooks is not None and not hooks


def _lie_alike(saved: Any, live: Any) -> bool:
    """Tell whether all tensors of two trees are plain, on the host, and of the same order in memory."""
    if isinstance(saved, torch.Tensor) and isinstance(live, torch.Tensor):
        return (
            all(type(each) in _PLAIN_TENSORS and each.device.type == "cpu" for each in (saved, live))
            and saved.layout == live.layout == torch.strided
            and saved.stride() == live.stride()
            and (saved.requires_grad == live.requires_grad or type(live) is torch.nn.Parameter)
        )
    if isinstance(saved, dict) and isinstance(live, dict):
        return saved.keys() == live.keys() and all(_lie_alike(saved[key], live[key]) for key in saved)
    if isinstance(saved, list | tuple) and isinstance(live, list | tuple):
        return len(saved) == len(live) and all(map(_lie_alike, saved, live))
    return not isinstance(saved, torch.Tensor) and not isinstance(live, torch.Tensor)
