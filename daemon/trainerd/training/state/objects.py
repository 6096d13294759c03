"""The tracked objects of a run by name, with what their modules looked like when tracking began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainerd.errors import UserError
from trainerd.training.state.module_extras import ModuleBaseline, put_back
from trainerd.training.state.optimizer_names import parameter_names
from trainerd.training.state.tracked import Stateful, check_tracked, optimizer_classes, unwrapped

if TYPE_CHECKING:
    from collections.abc import Mapping


class TrackedObjects(dict[str, Stateful]):
    """Objects whose state belongs to a checkpoint, in the order in which they were tracked."""

    def __init__(self) -> None:
        super().__init__()
        self._baselines: dict[str, ModuleBaseline] = {}

    def track(self, name: str, value: object) -> None:
        """Add an object.

        Raises:
            UserError: It has no state, or the name cannot be one.
        """
        self[name] = check_tracked(name, value)
        module = unwrapped(self[name])
        if isinstance(module, torch.nn.Module):
            self._baselines[name] = ModuleBaseline(module)

    def check_initialized(self) -> None:
        """Check that every module has all its parameters and buffers.

        Raises:
            UserError: A lazy module has not seen a batch yet.
        """
        for name, value in self.items():
            module = unwrapped(value)
            if not isinstance(module, torch.nn.Module):
                continue
            for entry, tensor in (*module.named_parameters(), *module.named_buffers()):
                if torch.nn.parameter.is_lazy(tensor):
                    raise UserError(
                        f"{name}.{entry} is not initialized: a lazy module has no values "
                        "before its first batch",
                        hint=f"run one batch through {name} first, before the optimizer is made: "
                        f"{name}(next(iter(loader))…), and then track both",
                    )

    def module_changes(self) -> dict[str, Any]:
        """Return what training changed in the modules beyond their state dicts.

        See `ModuleBaseline.changes`.
        """
        found: dict[str, Any] = {}
        for name, baseline in self._baselines.items():
            module = unwrapped(self[name])
            assert isinstance(module, torch.nn.Module)
            if changes := baseline.changes(module):
                found[name] = changes
        return found

    def put_back(self, changes: Mapping[str, Any]) -> None:
        """Make the changes that `module_changes` returned to the modules of these names."""
        for name, each in changes.items():
            module = unwrapped(self[name]) if name in self else None
            if isinstance(module, torch.nn.Module):
                put_back(module, each)

    def notes(self) -> dict[str, Any]:
        """Return what a checkpoint notes about the objects besides their states."""
        return {CLASSES: optimizer_classes(self), PARAMETER_NAMES: parameter_names(self)}


CLASSES = "classes"
PARAMETER_NAMES = "parameter_names"
MODULE_CHANGES = "module_changes"
