"""What a user tracks: anything with ``state_dict`` and ``load_state_dict``, seen without its wrappers."""

from __future__ import annotations

import sys
from typing import Any, Protocol, runtime_checkable

import torch

from trainerd.errors import UserError
from trainerd.training.state.generators import TrackedGenerator, is_generator

Objects = dict[str, "Stateful"]


@runtime_checkable
class Stateful(Protocol):
    """Anything whose state can be taken out and put back."""

    def state_dict(self) -> Any:
        """Return the state as a tree of plain values and tensors."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Put back what `state_dict` returned."""
        ...


def check_tracked(name: str, value: object) -> Stateful:
    """Return `value` if it can be tracked.

    Raises:
        UserError: It has no state to take out, or the name cannot be one.
    """
    if not name.isidentifier():
        raise UserError(f"cannot track {name!r}: a name is a Python identifier")
    if is_generator(value):
        return TrackedGenerator(value)
    if not isinstance(value, Stateful):
        raise UserError(
            f"cannot track {name}: a {type(value).__qualname__} has no state_dict() and load_state_dict()",
            hint=f"for a plain value use session.value({name!r}, default); random generators of torch, "
            "NumPy and "
            "Python can be tracked as they are",
        )
    fsdp = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)
    if isinstance(value, torch.nn.Module) and fsdp is not None:
        for module in value.modules():
            if isinstance(module, fsdp):
                raise UserError(
                    f"cannot track {name}: FullyShardedDataParallel (FSDP1) gives its state by collectives "
                    "only, and a rank that drains alone would wait in them for ever",
                    hint="use FSDP2: torch.distributed.fsdp.fully_shard(model)",
                )
    return value


def unwrapped(value: Stateful) -> Stateful:
    """Look through the wrappers that add a prefix to every key: DataParallel, DDP, `torch.compile`.

    So a checkpoint of a wrapped model loads into a plain one, and the other way round.
    """
    while True:
        if isinstance(value, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            value = value.module
        elif isinstance(value, torch.nn.Module) and "_orig_mod" in (inner := dict(value.named_children())):
            value = inner["_orig_mod"]  # torch.compile's, as every key of its state says
        else:
            return value


def class_name(value: Stateful) -> str:
    """Return the name of an object's class as a checkpoint notes it.

    The state of another class may look the same.
    """
    return type(value).__qualname__


def optimizer_classes(objects: Objects) -> dict[str, str]:
    """Return the class of every optimizer among what is tracked."""
    return {
        name: class_name(value) for name, value in objects.items() if isinstance(value, torch.optim.Optimizer)
    }
