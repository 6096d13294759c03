"""What the tracked objects keep: themselves, and what is inside them and in their state.

A wrapper that is tracked keeps what it wraps if its state shows it: an optimizer inside something whose state
has parameter groups is kept, a GradScaler beside it is not.
"""

from __future__ import annotations

import types
import weakref
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.training.state.tracked import Objects, unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEDULERS: Final = (torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
_NODES_MAX: Final = 20_000
_DEPTH_MAX: Final = 5
_OPAQUE: Final = (
    str, bytes, bytearray, int, float, complex, range, slice, type(None), type, types.ModuleType,
    types.FunctionType, types.MethodType, types.BuiltinFunctionType, weakref.ReferenceType,
)  # fmt: skip
_MARKS: Final[tuple[tuple[Any, frozenset[str]], ...]] = (
    (torch.optim.Optimizer, frozenset({"param_groups"})),
    (SCHEDULERS, frozenset({"last_epoch", "_step_count", "best"})),
    (torch.amp.GradScaler, frozenset({"growth_factor", "growth_interval"})),
)
"""Keys of a state that show that the state of an object of that kind is in it."""


class Coverage:
    """What a checkpoint of these objects and values holds.

    Args:
        objects: The tracked objects, by name.
        values: The values of the session, by name.

    Attributes:
        optimizers: The optimizers whose state is kept.
        modules: The tracked modules, without their wrappers.
    """

    def __init__(self, objects: Objects, values: Any) -> None:
        self.optimizers: list[torch.optim.Optimizer] = []
        self.modules: list[torch.nn.Module] = []
        self._kept: dict[int, Any] = {}
        self._parameters: set[int] = set()
        self._memory: set[int] = set()
        self._nodes = 0
        self._note_memory(values)
        for value in objects.values():
            self._take(value)

    def keeps(self, value: object) -> bool:
        """Return whether the state of an object is in the checkpoint."""
        return id(value) in self._kept

    def keeps_tensor(self, tensor: torch.Tensor) -> bool:
        """Return whether the values of a tensor are in the checkpoint."""
        return id(tensor) in self._parameters or memory_of(tensor) in self._memory

    def keeps_parameter(self, parameter: torch.Tensor) -> bool:
        """Return whether a tensor belongs to what trains: kept, or a parameter of a kept optimizer."""
        return self.keeps_tensor(parameter) or any(
            parameter is each for optimizer in self.optimizers for each in parameters_of(optimizer)
        )

    # ------------------------------------------------------------------ within

    def _take(self, value: Any) -> None:
        self._keep(value)
        inner = unwrapped(value)
        self._keep(inner)
        if isinstance(inner, torch.nn.Module):
            self.modules.append(inner)
            self._take_module(inner)
            if not _has_own_state(inner):
                return
        try:
            state = inner.state_dict()
        except Exception:  # noqa: BLE001 - some can be asked at a save only; they are given the benefit
            state = None
        keys, shapes = _outline(state)
        self._note_memory(state)
        self._take_parts(inner, keys if state is not None else None, shapes)

    def _take_module(self, module: torch.nn.Module) -> None:
        for each in module.modules():
            self._keep(each)
        tensors = [*module.parameters(), *module.buffers()]
        self._parameters.update(map(id, tensors))
        self._memory.update(address for each in tensors if (address := memory_of(each)) is not None)  # views

    def _keep(self, value: Any) -> None:
        if id(value) not in self._kept and isinstance(value, torch.optim.Optimizer):
            self.optimizers.append(value)
        self._kept[id(value)] = value

    def _take_parts(self, owner: Any, keys: set[str] | None, shapes: set[tuple[int, ...]]) -> None:
        """Take what lies within `owner`, as far as its state shows that it is kept."""
        seen: set[int] = {id(owner)}
        level = [owner]
        for _ in range(_DEPTH_MAX):
            below: list[Any] = []
            for each in level:
                for part in _parts(each):
                    if id(part) in seen or self._nodes >= _NODES_MAX:
                        continue
                    seen.add(id(part))
                    self._nodes += 1
                    if self._is_in_state(owner, part, keys, shapes):
                        self._keep(part)
                        if isinstance(part, torch.nn.Module):
                            self._take_module(part)
                        elif isinstance(part, torch.Tensor):
                            self._parameters.add(id(part))
                        below.append(part)
            level = below

    def _is_in_state(
        self, owner: Any, part: Any, keys: set[str] | None, shapes: set[tuple[int, ...]]
    ) -> bool:
        if isinstance(part, torch.optim.Optimizer) and _inherits_state(owner):
            return part.state is owner.state or not part.state
        if keys is None:
            return True
        if isinstance(part, torch.Tensor):
            return tuple(part.shape) in shapes
        if isinstance(part, torch.nn.Module):
            return all(tuple(each.shape) in shapes for each in part.parameters())
        for kind, marks in _MARKS:
            if isinstance(part, kind):
                return bool(keys & marks)
        return True

    def _note_memory(self, tree: Any) -> None:
        for tensor in tensors_in(tree):
            if (address := memory_of(tensor)) is not None:
                self._memory.add(address)


def parameters_of(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Yield the parameters of an optimizer."""
    for group in optimizer.param_groups:
        yield from group["params"]


def memory_of(tensor: torch.Tensor) -> int | None:
    """Return where the values of a tensor lie, None if that cannot be said."""
    try:
        return tensor.data_ptr() or None
    except (RuntimeError, NotImplementedError):
        return None


def tensors_in(tree: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    """Yield the tensors in a tree of plain containers."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif depth < _DEPTH_MAX * 2:
        items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
        for item in items:
            yield from tensors_in(item, depth + 1)


def _outline(tree: Any) -> tuple[set[str], set[tuple[int, ...]]]:
    """Return the keys in a state, at any depth, and the shapes of its tensors."""
    keys: set[str] = set()

    def look(node: Any, depth: int) -> None:
        if depth > _DEPTH_MAX * 2:
            return
        if isinstance(node, dict):
            keys.update(key for key in node if isinstance(key, str))
        if isinstance(node, dict | list | tuple):
            for item in node.values() if isinstance(node, dict) else node:
                if isinstance(item, dict | list | tuple):
                    look(item, depth + 1)

    look(tree, 0)
    return keys, {tuple(tensor.shape) for tensor in tensors_in(tree)}


def _parts(value: Any) -> Iterator[Any]:
    """Yield what an object owns. A scheduler and an optimizer's hooks do not own their optimizer."""
    if isinstance(value, torch.nn.Module | torch.Tensor):
        items: list[Any] = [] if not _has_own_state(value) else list(vars(value).values())
    elif isinstance(value, SCHEDULERS):
        items = [item for name, item in vars(value).items() if name != "optimizer"]
    elif isinstance(value, dict):
        items = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        items = list(value)
    else:
        items = list(getattr(value, "__dict__", {}).values())
    yield from (item for item in items if not isinstance(item, _OPAQUE))


def _has_own_state(value: Any) -> bool:
    """Return whether a module puts more into its state than parameters and buffers."""
    if not isinstance(value, torch.nn.Module):
        return False
    plain = torch.nn.Module
    return any(
        type(each).state_dict is not plain.state_dict
        or type(each).get_extra_state is not plain.get_extra_state
        for each in value.modules()
    )


def _inherits_state(owner: Any) -> bool:
    """Return whether an optimizer's state is its own alone, without that of an optimizer within it."""
    return (
        isinstance(owner, torch.optim.Optimizer)
        and type(owner).state_dict is torch.optim.Optimizer.state_dict
    )
