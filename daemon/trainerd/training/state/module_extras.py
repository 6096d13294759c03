"""What decides the rest of a run and is in no ``state_dict`` of a module.

Non-persistent buffers, ``requires_grad``, the training mode of each module, and plain attributes: numbers,
flags, strings, tensors, arrays, random generators, and lists, tuples and dicts of these. What has not changed
since tracking began, nor since training began, is configuration, and stays as the program has it; what
training changed is saved, and put back at a resume.
"""

from __future__ import annotations

import math
import struct
import sys
import weakref
from typing import Any, Final

import torch

from trainerd.training.state.copied_state import copied_state
from trainerd.training.state.generators import generator_state, is_generator, set_generator_state
from trainerd.training.state.tensor_dtypes import SAFETENSORS_DTYPES

_INTERNAL: Final = frozenset(torch.nn.Module().__dict__) - {"training"}
"""Attributes that torch keeps for itself."""

_SCALARS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_COMPARED_BYTES_MAX: Final = 1 << 16
"""Host tensors up to this size are compared by value besides: ``.data`` escapes the version counter."""
_DEPTH_MAX: Final = 8


class ModuleBaseline:
    """What a module looked like when tracking began.

    Args:
        module: Without its wrappers.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._attributes = {place: ValueMark(value) for place, value in _attributes(module)}
        self._buffers = {place: ValueMark(value) for place, value in _non_persistent_buffers(module)}
        self._requires_grad = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
        self._begun: ModuleBaseline | None = None

    def begin(self, module: torch.nn.Module) -> None:
        """Training begins: what the program set since tracking began may be changed back by training."""
        self._begun = ModuleBaseline(module)

    def changes(self, module: torch.nn.Module) -> dict[str, Any]:
        """Return what has changed since, or since training began, as a tree of plain values and live tensors.

        Empty sections are left out.
        """
        baselines = (self,) if self._begun is None else (self, self._begun)
        attributes: dict[str, Any] = {}
        generators: dict[str, Any] = {}
        for place, value in _attributes(module):
            if not all(_is_same(each._attributes, place, value) for each in baselines):  # noqa: SLF001 - of its own class
                if is_generator(value):
                    generators[place] = generator_state(value)
                else:
                    attributes[place] = _detached(value)
        buffers = {
            place: value
            for place, value in _non_persistent_buffers(module)
            if not all(_is_same(each._buffers, place, value) for each in baselines)  # noqa: SLF001
        }
        requires_grad = {
            name: parameter.requires_grad
            for name, parameter in module.named_parameters()
            if any(
                parameter.requires_grad != each._requires_grad.get(name, parameter.requires_grad)  # noqa: SLF001
                for each in baselines
            )
        }
        sections = {
            "attributes": attributes,
            "buffers": buffers,
            "generators": generators,
            "requires_grad": requires_grad,
        }
        return {name: section for name, section in sections.items() if section}


def put_back(module: torch.nn.Module, changes: dict[str, Any]) -> None:
    """Make the changes that `ModuleBaseline.changes` returned to a module of the same structure.

    Submodules that are not there any more are passed over: the state dict, which is compared, says so
    already.
    """
    modules = dict(module.named_modules())
    home = next((each.device for each in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    for place, value in changes.get("attributes", {}).items():
        owner, name = _owner(modules, place)
        if owner is not None:
            owner.__dict__[name] = _placed(copied_state(value), owner.__dict__.get(name), home)
    for place, value in changes.get("buffers", {}).items():
        owner, name = _owner(modules, place)
        if owner is not None and name in owner._buffers:  # noqa: SLF001 - the only place that says which persist
            owner._buffers[name] = _placed(copied_state(value), owner._buffers[name], home)  # noqa: SLF001
    for place, state in changes.get("generators", {}).items():
        owner, name = _owner(modules, place)
        generator = owner.__dict__.get(name) if owner is not None else None
        if is_generator(generator):
            set_generator_state(generator, state)
    parameters = dict(module.named_parameters())
    for name, flag in changes.get("requires_grad", {}).items():
        if name in parameters:
            parameters[name].requires_grad_(flag)


def own_values(module: torch.nn.Module) -> dict[str, Any]:
    """Return parameters, buffers and plain attributes of a module by name, without those of its submodules.

    Whether it is in training mode is left out: that is set around each evaluation.
    """
    tensors = {**module._parameters, **module._buffers}  # noqa: SLF001 - without those of submodules
    plain = {
        name: value
        for name, value in tensors.items()
        if type(value) is torch.nn.Parameter or _is_plain(value, 0)
    }
    return plain | {
        name: value
        for name, value in module.__dict__.items()
        if name not in _INTERNAL and name != "training" and _is_plain(value, 0)
    }


def _attributes(module: torch.nn.Module) -> list[tuple[str, Any]]:
    """Return the plain attributes of a module and its submodules, with their places."""
    return [
        (f"{prefix}.{name}" if prefix else name, value)
        for prefix, each in module.named_modules()
        for name, value in each.__dict__.items()
        if name not in _INTERNAL and _is_plain(value, 0)
    ]


def _non_persistent_buffers(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    found = []
    for prefix, each in module.named_modules():
        for name in each._non_persistent_buffers_set:  # noqa: SLF001 - the only place that says so
            value = each._buffers.get(name)  # noqa: SLF001
            if value is not None and _is_plain_tensor(value):
                found.append((f"{prefix}.{name}" if prefix else name, value))
    return found


def _owner(modules: dict[str, torch.nn.Module], place: str) -> tuple[torch.nn.Module | None, str]:
    prefix, _, name = place.rpartition(".")
    return modules.get(prefix), name


def _is_plain_tensor(value: Any) -> bool:
    return (
        type(value) is torch.Tensor
        and value.layout is torch.strided
        and value.dtype in SAFETENSORS_DTYPES
        and not value.is_nested
        and not value.is_meta
    )


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return (
        numpy is not None
        and type(value) is numpy.ndarray
        and value.dtype.kind in "biufc"
        and value.dtype.isnative
    )


def _is_plain(value: Any, depth: int) -> bool:
    """Return whether a checkpoint can hold a value.

    What else hangs on a module, such as functions, is code.
    """
    kind = type(value)
    if kind in _SCALARS or _is_plain_tensor(value) or _is_array(value):
        return True
    if depth == 0 and is_generator(value):
        return True
    if depth >= _DEPTH_MAX:
        return False
    if kind in {list, tuple}:
        return all(_is_plain(each, depth + 1) for each in value)
    if kind is dict:
        return all(type(key) in {str, int} and _is_plain(each, depth + 1) for key, each in value.items())
    return False


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value if value.is_leaf else value.detach()  # a leaf keeps its requires_grad
    if type(value) in {list, tuple}:
        return type(value)(_detached(each) for each in value)
    if type(value) is dict:
        return {key: _detached(each) for key, each in value.items()}
    return value


def _placed(value: Any, former: Any, home: torch.device) -> Any:
    """Return a restored value with its tensors on the device where they were used."""
    if isinstance(value, torch.Tensor):
        device = former.device if isinstance(former, torch.Tensor) else home
        return value.detach().to(device).requires_grad_(value.requires_grad)
    if type(value) in {list, tuple}:
        befores = former if type(former) is type(value) and len(former) == len(value) else [None] * len(value)
        return type(value)(_placed(each, before, home) for each, before in zip(value, befores, strict=True))
    if type(value) is dict:
        befores = former if isinstance(former, dict) else {}
        return {key: _placed(each, befores.get(key), home) for key, each in value.items()}
    return value


class ValueMark:
    """What it takes to tell whether a plain value is still the same."""

    def __init__(self, value: Any) -> None:
        self._kind = type(value)
        self._mark = _fingerprint(value)
        self._reference = weakref.ref(value) if isinstance(value, torch.Tensor) else None
        self._version = _version(value)

    @property
    def is_empty(self) -> bool:
        """Whether there was no value."""
        return self._kind is type(None)

    def is_same(self, value: Any) -> bool:
        """Return whether a value is the one of the beginning, unchanged."""
        if type(value) is not self._kind:
            return False
        if self._reference is not None and (
            self._reference() is not value or _version(value) != self._version
        ):
            return False
        return bool(_fingerprint(value) == self._mark)


def _is_same(marks: dict[str, ValueMark], place: str, value: Any) -> bool:
    mark = marks.get(place)
    return mark is not None and mark.is_same(value)


def _version(value: Any) -> int | None:
    if isinstance(value, torch.Tensor) and not value.is_inference():
        return value._version  # noqa: SLF001 - the only sign of a change in place
    return None


def _fingerprint(value: Any) -> Any:
    """Return something that is equal for equal values; of large or device tensors only the shape.

    Their identity and version count.
    """
    if isinstance(value, torch.Tensor):
        head = (value.dtype, tuple(value.shape), value.device)
        if value.device.type != "cpu" or value.nbytes > _COMPARED_BYTES_MAX:
            return head
        plain = value.detach().resolve_conj().resolve_neg().contiguous()
        return (*head, bytes(plain.view(-1).view(torch.uint8).tolist()))
    if type(value) is float:
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    if is_generator(value):
        return _fingerprint(generator_state(value))
    if type(value) in {list, tuple}:
        return tuple([(type(each), _nested_identity(each), _fingerprint(each)) for each in value])
    if type(value) is dict:
        return tuple(
            [(key, type(each), _nested_identity(each), _fingerprint(each)) for key, each in value.items()]
        )
    if _is_array(value):
        import xxhash

        return (value.dtype.str, value.shape, xxhash.xxh3_128_digest(value.tobytes()))
    return value


def _nested_identity(value: Any) -> Any:
    """Return what tells large tensors within lists apart; their own references would not keep them alive."""
    if isinstance(value, torch.Tensor) and (value.device.type != "cpu" or value.nbytes > _COMPARED_BYTES_MAX):
        return (value.data_ptr(), _version(value))
    return None
