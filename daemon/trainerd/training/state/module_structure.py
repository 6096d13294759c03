"""Which modules a module consists of, and what training replaced among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.contract.verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


class ModuleStructure:
    """The classes of a module and its submodules, and its parameters, when training began.

    Args:
        module: Without its wrappers.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._first = structure_of(module)
        self._parameters = _shapes_of(module)

    def other_parameters(self, module: torch.nn.Module) -> list[str]:
        """Return the names of the parameters that there are no more, or that are new or of another shape."""
        now = _shapes_of(module)
        return [name for name in {**self._parameters, **now} if self._parameters.get(name) != now.get(name)]

    def changes(self, module: torch.nn.Module) -> dict[str, str]:
        """Return the classes that are other ones now, by the path of the submodule; empty is no submodule."""
        now = structure_of(module)
        paths = [path for path in {**self._first, **now} if self._first.get(path) != now.get(path)]
        return {path: now.get(path, "") for path in paths}


def structure_of(module: torch.nn.Module) -> dict[str, str]:
    """Return the class of each submodule, and its ``forward`` if that was replaced, by its path."""
    return {path: _kind(each) for path, each in module.named_modules()}


def _shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in module.named_parameters()}


def _kind(module: torch.nn.Module) -> str:
    kind = type(module).__qualname__
    forward = vars(module).get("forward")
    return f"{kind} with forward {getattr(forward, '__qualname__', '')}" if forward is not None else kind


def replaced_modules(name: str, module: torch.nn.Module, changes: Mapping[str, str]) -> list[Reason]:
    """Return a reason for each submodule that training had replaced and the program has not.

    Args:
        name: The name under which the module is tracked.
        module: The module as it is about to train.
        changes: What `ModuleStructure.changes` returned for the checkpoint.
    """
    now = structure_of(module)
    return [
        Reason(
            "module-replaced",
            f"{name}.{path}" if path else name,
            f"training had made it {kind or 'absent'}, and here it is {now.get(path) or 'absent'}: a "
            "checkpoint holds values and no code",
            "replace it at the top of each epoch that needs it, by the number of the epoch, or keep a flag "
            "as an attribute of the module and let forward() choose",
        )
        for path, kind in changes.items()
        if now.get(path, "") != kind
    ]
