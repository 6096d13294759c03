"""Trainable parameters that scripts have beside what is tracked: a backbone, the network of a loss.

No optimizer steps them, and a checkpoint does not have their values, which the program makes. But a backward
pass gives them gradients, which add up if nothing clears them, and which count where the norm of all
gradients is clipped.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from trainerd.training.state.caller_names import CallerNames


class UntrackedParameters:
    """Such parameters under the names that the user's code has for them, for as long as they live."""

    def __init__(self) -> None:
        self._owners: dict[str, dict[str, weakref.ref[Any]]] = {}

    def look(self, names: CallerNames, kept: Collection[int]) -> None:
        """Take in what the user's code has names for.

        Args:
            names: Names of the code.
            kept: Identities of the parameters that are tracked.
        """
        seen = {*kept, *(id(each) for _, own in self.owners(()) for each in own.values())}
        for owner, parameters in _owners_in(names):
            own = {name: weakref.ref(each) for name, each in parameters.items() if id(each) not in seen}
            if own:
                self._owners.setdefault(owner, {}).update(own)
                seen.update(id(each) for each in parameters.values())

    def find(self, labels: Collection[str], names: CallerNames) -> None:
        """Take in the parameters of these labels, as `owners` returned them, as far as there are such."""
        seen: set[int] = set()  # a part of a module has a name of its own, too
        for owner, parameters in _owners_in(names) if labels else ():
            found = {name: each for name, each in parameters.items() if name in labels}
            own = {name: weakref.ref(each) for name, each in found.items() if id(each) not in seen}
            if own:
                self._owners.setdefault(owner, {}).update(own)
                seen.update(map(id, found.values()))

    def owners(self, kept: Collection[int]) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        """Yield each owner with its parameters by their labels, without those that are tracked."""
        for owner, parameters in self._owners.items():
            alive = {label: each() for label, each in parameters.items()}
            own = {label: each for label, each in alive.items() if each is not None and id(each) not in kept}
            if own:
                yield owner, own


def _owners_in(names: CallerNames) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Yield the modules and single parameters in the user's code, each under a name that no object has."""
    for known in names:
        value = known.value
        if isinstance(value, torch.nn.Module):
            own: dict[str, torch.Tensor] = {
                f"{known.expression}.{name}": each
                for name, each in value.named_parameters()
                if each.requires_grad
            }
        elif isinstance(value, torch.Tensor) and value.requires_grad and value.is_leaf:
            own = {known.expression: value}
        else:
            continue
        if own:
            yield f"{known.expression} (untracked)", own
