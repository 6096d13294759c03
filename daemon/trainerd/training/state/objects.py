"""The tracked objects of a run by name, with what their modules looked like when tracking began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainerd.contract.counted import counted
from trainerd.contract.verdict import Reason
from trainerd.errors import MismatchError, UserError
from trainerd.training.state.module_extras import ModuleBaseline, put_back
from trainerd.training.state.module_structure import ModuleStructure, replaced_modules
from trainerd.training.state.optimizer_names import Names, check_groups, parameter_names
from trainerd.training.state.optimizer_wrappers import OptimizerWrapper, wrapper_of
from trainerd.training.state.shards import check_placements
from trainerd.training.state.tracked import Stateful, check_tracked, optimizer_classes, unwrapped

if TYPE_CHECKING:
    from collections.abc import Mapping


class TrackedObjects(dict[str, Stateful]):
    """Objects whose state belongs to a checkpoint, in the order in which they were tracked.

    Attributes:
        first_names: Names of the parameters of the optimizers when training began; see `parameter_names`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._baselines: dict[str, ModuleBaseline] = {}
        self._structures: dict[str, ModuleStructure] = {}
        self._saved_structures: dict[str, dict[str, str]] = {}
        self._wrappers: dict[str, OptimizerWrapper] = {}
        self.first_names: dict[str, Names] = {}

    def track(self, name: str, value: object) -> None:
        """Add an object.

        Raises:
            UserError: It has no state, or none that can be saved, or the name cannot be one.
        """
        wrapper = wrapper_of(name, value)
        self[name] = check_tracked(name, value if wrapper is None else wrapper.outer.optim)
        if wrapper is not None:
            self._wrappers[name] = wrapper
        module = unwrapped(self[name])
        if isinstance(module, torch.nn.Module):
            check_placements(name, module)
            self._baselines[name] = ModuleBaseline(module)

    def begin(self) -> None:
        """Training begins, and nothing is restored yet: what the modules look like now is the program's.

        Raises:
            UserError: A group of an optimizer has no list of parameters.
        """
        check_groups(self)
        for name, module in self._modules():
            self._baselines[name].begin(module)
            self._structures[name] = ModuleStructure(module)
        self.first_names = parameter_names(self)

    def _modules(self) -> list[tuple[str, torch.nn.Module]]:
        found = [(name, unwrapped(self[name])) for name in self._baselines]
        return [(name, module) for name, module in found if isinstance(module, torch.nn.Module)]

    def check_ranks(self, source: str, *, saved: int, now: int) -> None:
        """Check that a checkpoint of so many ranks can be resumed by so many.

        Raises:
            MismatchError: The state of an optimizer is spread over the ranks, and there are not as many.
        """
        spread = [name for name, wrapper in self._wrappers.items() if wrapper.is_spread]
        if spread and saved != now:
            raise MismatchError(
                f"{source} is of {counted(saved, 'rank')}, and {spread[0]} is a ZeroRedundancyOptimizer, of "
                f"which each rank saves the part that it updates: {counted(now, 'rank')} would need other "
                "parts",
                [],
                hint=f"go on with {counted(saved, 'rank')}; FSDP2, and optimizers without "
                "ZeroRedundancyOptimizer, go on with any number",
            )

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

        See `ModuleBaseline.changes`. Wrapped optimizers are made complete.
        """
        found: dict[str, Any] = {
            name: changes for name, wrapper in self._wrappers.items() if (changes := wrapper.changes())
        }
        for name, module in self._modules():
            changes = self._baselines[name].changes(module)
            if name in self._structures and (replaced := self._structures[name].changes(module)):
                changes["structure"] = replaced
            if changes:
                found[name] = changes
        return found

    def put_back(self, changes: Mapping[str, Any]) -> None:
        """Make the changes that `module_changes` returned to the modules of these names."""
        for name, wrapper in self._wrappers.items():
            wrapper.put_back(changes.get(name, {}))
        for name, each in changes.items():
            module = unwrapped(self[name]) if name in self else None
            if isinstance(module, torch.nn.Module):
                put_back(module, each)
        self._saved_structures = {
            name: each["structure"] for name, each in changes.items() if "structure" in each
        }

    def replaced_modules(self) -> list[Reason]:
        """Return what training had replaced in modules at the checkpoint and the program has not, once."""
        saved, self._saved_structures = self._saved_structures, {}
        return [
            reason
            for name, module in self._modules()
            for reason in replaced_modules(name, module, saved.get(name, {}))
        ]

    def other_parameters(self) -> list[Reason]:
        """Return what training has added to the parameters of modules, or taken from them.

        The program that resumes begins without these changes, and what it has is compared by name.
        """
        reasons = []
        for name, module in self._modules():
            found = self._structures[name].other_parameters(module) if name in self._structures else []
            if found:
                more = f" and {len(found) - 1} more" if len(found) > 1 else ""
                reasons.append(
                    Reason(
                        "other-parameters",
                        name,
                        f"training has changed which parameters it has ({found[0]}{more}): a checkpoint from "
                        "here on does not fit a program that begins as this one did, and cannot resume it",
                        "make all parameters before the first epoch, and freeze or mask those that are not "
                        "used yet; or train each form of the module in a run of its own",
                    )
                )
        return reasons

    def notes(self) -> dict[str, Any]:
        """Return what a checkpoint notes about the objects besides their states."""
        now = parameter_names(self)
        first = {name: names for name, names in self.first_names.items() if now.get(name) != names}
        return {CLASSES: optimizer_classes(self), PARAMETER_NAMES: now, FIRST_PARAMETER_NAMES: first}


CLASSES = "classes"
PARAMETER_NAMES = "parameter_names"
FIRST_PARAMETER_NAMES = "first_parameter_names"
MODULE_CHANGES = "module_changes"
OBJECT_DEVICES = "object_devices"
