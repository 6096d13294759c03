"""What the hooks of modules, parameters and optimizers remember from step to step.

A hook that counts its calls or keeps an average decides gradients and learning rates, and is in no
``state_dict``. The attributes of hooks and the variables of their code are saved as those of samplers are.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import torch

from trainerd.training.data.found_generators import is_library
from trainerd.training.data.loader_memory import LoaderMemory
from trainerd.training.state.tracked import unwrapped

_OF_MODULES: Final = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_OF_PARAMETERS: Final = ("_backward_hooks", "_post_accumulate_grad_hooks")
_OF_OPTIMIZERS: Final = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


class HookMemory:
    """The hooks of tracked objects that the script has registered before its first epoch.

    Args:
        objects: What is tracked, by name.
    """

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self._roots = roots = dict(_hooks_of(objects))
        self._memory = LoaderMemory(roots, tuple(roots), is_small=True) if roots else None

    @property
    def hooks(self) -> list[Any]:
        """The hooks whose memory is saved."""
        return list(self._roots.values())

    def saved(self) -> dict[str, Any]:
        """Return what hooks have changed since, as a tree; empty if there are none."""
        return {} if self._memory is None else self._memory.saved()

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Put back what `saved` returned."""
        if self._memory is not None:
            self._memory.put_back(saved, is_inside=True)


def _hooks_of(objects: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the script's own hooks, each under the name of its place."""
    for name, value in objects.items():
        each = unwrapped(value)
        if isinstance(each, torch.optim.Optimizer):
            yield from _own_hooks(name, each, _OF_OPTIMIZERS)
        if isinstance(each, torch.nn.Module):
            for path, module in each.named_modules():
                yield from _own_hooks(f"{name}.{path}", module, _OF_MODULES)
            for path, parameter in each.named_parameters():
                yield from _own_hooks(f"{name}.{path}", parameter, _OF_PARAMETERS)


def _own_hooks(place: str, holder: Any, kinds: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for kind in kinds:
        for number, hook in enumerate((getattr(holder, kind, None) or {}).values()):
            if not is_library(_module_of(hook)):
                # A root's name ends at the first dot or bracket.
                yield f"{place} {kind.strip('_')} {number}".replace(".", "/").replace("[", "("), hook


def _module_of(hook: Any) -> str | None:
    while isinstance(hook, functools.partial):
        hook = hook.func
    if isinstance(hook, types.MethodType):
        return type(hook.__self__).__module__
    is_function = isinstance(hook, types.FunctionType | types.BuiltinFunctionType)
    return hook.__module__ if is_function else type(hook).__module__
