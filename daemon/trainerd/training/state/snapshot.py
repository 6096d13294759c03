"""A snapshot: the state of all tracked objects at one moment, ready to be written."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.training.state.in_place import devices_in
from trainerd.training.state.objects import MODULE_CHANGES, OBJECT_DEVICES, TrackedObjects
from trainerd.training.state.tensor_layouts import TensorTable
from trainerd.training.state.tensors import encode_state
from trainerd.training.state.tracked import Objects, Stateful, unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TREE_FORMAT: Final = "trainerd.tree/1"

DOCUMENT_BYTES_MAX: Final = 4 << 20
"""Room for the tree, the manifest and the header, which are small beside the tensors."""


@dataclass(frozen=True)
class Snapshot:
    """The two files of a rank, before they are files.

    Attributes:
        document: What goes into ``rank-NNNNN.json``.
        tensors: What goes into ``rank-NNNNN.safetensors``, by name. Live memory unless copied.
    """

    document: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    @property
    def tensor_bytes(self) -> int:
        """Size of all tensors, in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def predicted_bytes(self) -> int:
        """How much room a save takes, to the safe side, in bytes."""
        return self.tensor_bytes + DOCUMENT_BYTES_MAX


def take_snapshot(objects: Objects, *, extra: Mapping[str, Any] | None = None) -> Snapshot:
    """Take the state of all objects. Nothing is copied: the tensors are the live ones.

    Args:
        objects: What is tracked, by name; wrappers are looked through.
        extra: More trees that belong to the same moment, such as the session's own.

    Raises:
        UnsupportedValueError: A value has no exact form on disk.
    """
    table = TensorTable()
    states: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    devices: dict[str, Any] = {}
    changes = objects.module_changes() if isinstance(objects, TrackedObjects) else {}
    for name, value in objects.items():
        state = _state_of(unwrapped(value))
        states[name] = encode_state(state, table, root=name)
        if not isinstance(unwrapped(value), (torch.nn.Module, torch.optim.Optimizer)):  # torch moves theirs
            devices[name] = devices_in(state)
        metadata = getattr(state, "_metadata", None)
        if metadata is not None:  # the versions of the modules, which load_state_dict looks at
            versions[name] = encode_state(dict(metadata), TensorTable(), root=f"{name}._metadata")
    document: dict[str, Any] = {"format": TREE_FORMAT, "objects": states, "module_versions": versions}
    if devices := {name: found for name, found in devices.items() if found}:
        document[OBJECT_DEVICES] = encode_state(devices, TensorTable(), root=f"_{OBJECT_DEVICES}")
    if isinstance(objects, TrackedObjects):
        if changes:
            document[MODULE_CHANGES] = encode_state(changes, table, root=f"_{MODULE_CHANGES}")
        document |= {name: note for name, note in objects.notes().items() if note}
    table.takes_shards = False  # state without an object could not be placed again
    for name, tree in (extra or {}).items():
        document[name] = encode_state(tree, table, root=f"_{name}")
    return Snapshot(document, table.tensors)


def _state_of(value: Stateful) -> Any:
    """Return the state of an object.

    That of a scheduler is without its functions, which loading leaves as they are.

    In torch 2.6, `SWALR` has one in its state.
    """
    try:
        state = value.state_dict()
    except KeyError:  # torch has no number for parameters that an optimizer has no more
        with _without_leftovers(value):
            state = value.state_dict()
    if isinstance(value, torch.optim.lr_scheduler.LRScheduler):
        return {name: each for name, each in state.items() if not isinstance(each, FunctionType)}
    return state


@contextlib.contextmanager
def _without_leftovers(value: Stateful) -> Iterator[None]:
    """Take away the state of parameters that an optimizer has no more, for as long as its state is taken.

    It has no effect on further steps.
    """
    left: dict[Any, Any] = {}
    if isinstance(value, torch.optim.Optimizer):
        stepped = {id(each) for group in value.param_groups for each in group["params"]}
        state = value.state
        left = {
            key: each
            for key, each in state.items()
            if isinstance(key, torch.Tensor) and id(key) not in stepped
        }
    for key in left:
        del state[key]
    try:
        yield
    finally:
        if left:
            state.update(left)
