"""The state of communication hooks of `DistributedDataParallel`, such as PowerSGD's error feedback.

A hook is registered with an object that it may change: PowerSGD keeps there what compression has lost so far,
the factors that it starts from, a step count and a random generator. No `state_dict` holds any of it.

Saved are the fields that hold tensors or generators, and those that training has changed. What is only
configured stays the program's.
"""

from __future__ import annotations

import copy
import weakref
from typing import TYPE_CHECKING, Any

import torch

from trainerd.training.state import ddp_reducer
from trainerd.training.state.copied_state import copied_state
from trainerd.training.state.generators import generator_state, is_generator, set_generator_state

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype)


class HookStates:
    """The states of the hooks of one replica.

    Args:
        replica: Which one.
    """

    def __init__(self, replica: DistributedDataParallel) -> None:
        self._replica = weakref.ref(replica)
        self._device = next((parameter.device for parameter in replica.parameters()), torch.device("cpu"))
        self._configured = [
            {
                name: copy.deepcopy(value)
                for name, value in _plain_fields(state).items()
                if not _has_tensors(value)
            }
            for state in self._live()
        ]

    def _live(self) -> list[Any]:
        replica = self._replica()
        return [] if replica is None else [state for _, state in ddp_reducer.hooks(replica) if _is_own(state)]

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what training has changed in the object of each hook; empty if that is nothing."""
        found = []
        for number, state in enumerate(self._live()):
            configured = self._configured[number] if number < len(self._configured) else {}
            fields = {
                name: value
                for name, value in _plain_fields(state).items()
                if _has_tensors(value) or name not in configured or configured[name] != value
            }
            generators = {
                name: generator_state(value) for name, value in _fields(state).items() if is_generator(value)
            }
            found.append({"class": type(state).__qualname__, "fields": fields, "generators": generators})
        return found if any(each["fields"] or each["generators"] for each in found) else []

    def load_state_dict(self, saved: list[dict[str, Any]]) -> bool:
        """Put back what `state_dict` returned; return whether the hooks are the same ones."""
        live = self._live()
        if [type(state).__qualname__ for state in live] != [each["class"] for each in saved]:
            return False
        for state, each in zip(live, saved, strict=True):
            for name, value in copied_state(each["fields"]).items():
                setattr(state, name, _on(self._device, value))
            for name, value in each["generators"].items():
                set_generator_state(getattr(state, name), value)
        return True


def _is_own(state: object) -> bool:
    """Tell whether an object may hold something of the training, and is not torch's own bookkeeping."""
    is_bookkeeping = isinstance(state, torch.distributed.ProcessGroup | weakref.ReferenceType)
    return not is_bookkeeping and bool(fields := _fields(state)) and "ddp_weakref" not in fields


def _fields(state: object) -> dict[str, Any]:
    """Return the attributes of an object, those in slots too."""
    slots = [name for kind in type(state).__mro__ for name in kind.__dict__.get("__slots__", ())]
    in_slots = {
        name: getattr(state, name) for name in slots if not name.startswith("__") and hasattr(state, name)
    }
    return in_slots | dict(getattr(state, "__dict__", {}))


def _plain_fields(state: object) -> dict[str, Any]:
    return {name: value for name, value in _fields(state).items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, (torch.Tensor, *_PLAIN))


def _has_tensors(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_tensors, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_tensors, value))
    return isinstance(value, torch.Tensor)


def _on(device: torch.device, value: Any) -> Any:
    """Return the value with its tensors on a device."""
    if isinstance(value, dict):
        return type(value)((key, _on(device, each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return type(value)(_on(device, each) for each in value)
    return value.to(device) if isinstance(value, torch.Tensor) else value
