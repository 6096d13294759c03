"""Whether the gradients of a step are kept for a later one: accumulated by hand, in no checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainerd.training.state.audit_coverage import parameters_of
from trainerd.training.state.audit_kinds import is_scaler_in_use, live_candidates

if TYPE_CHECKING:
    from trainerd.training.state.audit_coverage import Coverage
    from trainerd.training.state.tracked import Objects


class GradientsBefore:
    """The gradients and versions of the trained parameters before a step.

    Args:
        objects: What is tracked.
        coverage: What of it is kept.
    """

    def __init__(self, objects: Objects, coverage: Coverage) -> None:
        self._objects = objects
        self._gradients: dict[int, tuple[int, int]] = {}
        self._versions: dict[int, int] = {}
        for optimizer in coverage.optimizers:
            for parameter in parameters_of(optimizer):
                self._versions[id(parameter)] = _version(parameter)
                if parameter.grad is not None:
                    self._gradients[id(parameter)] = (id(parameter.grad), _version(parameter.grad))
        self._scalers = {
            id(value): value.state_dict()
            for value in objects.values()
            if isinstance(value, torch.amp.GradScaler) and value.is_enabled()
        }

    def has_new(self, coverage: Coverage) -> bool:
        """Return whether a trained parameter has a gradient other than zero that was not there before."""
        for optimizer in coverage.optimizers:
            for parameter in parameters_of(optimizer):
                gradient = parameter.grad
                if gradient is None or self._gradients.get(id(parameter)) == (
                    id(gradient),
                    _version(gradient),
                ):
                    continue
                if gradient.layout is not torch.strided or bool(gradient.detach().count_nonzero()):
                    return True
        return False

    def are_kept_for_later(self, coverage: Coverage, known: list[Any]) -> bool:
        """Return whether there are new gradients and, as far as that can be told, no step was made with them.

        Ask only where torch told of no step of any optimizer.

        Args:
            coverage: What is tracked, as it is now.
            known: Objects that the user's code has names for.
        """
        optimizers = coverage.optimizers
        if not optimizers or not self.has_new(coverage) or not all(map(_tells_its_steps, optimizers)):
            return False
        kept = set(map(id, optimizers))
        if any(_may_step(value) for value in self._objects.values() if id(value) not in kept):
            return False
        parameters = [each for optimizer in optimizers for each in parameters_of(optimizer)]
        if any(_version(each) != self._versions.get(id(each), _version(each)) for each in parameters):
            return False  # a step was made in some other way
        return not self._is_skip_possible(known)

    def _is_skip_possible(self, known: list[Any]) -> bool:
        """Return whether a gradient scaler may have left the step out, because of infinite gradients."""
        return any(
            isinstance(value, torch.amp.GradScaler)
            and is_scaler_in_use(value)
            and self._scalers.get(id(value)) != value.state_dict()
            for value in live_candidates(known=known)
        )


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - the only sign of a change in place


def _tells_its_steps(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether torch calls the hooks of this optimizer: its step was wrapped when it was made."""
    return bool(getattr(type(optimizer).step, "hooked", False))


def _may_step(value: Any) -> bool:
    """Return whether an object that is no optimizer of torch may step parameters by itself."""
    is_known = isinstance(
        value,
        torch.nn.Module | torch.optim.lr_scheduler.LRScheduler | torch.optim.Optimizer | torch.amp.GradScaler,
    )
    return not is_known and callable(getattr(value, "step", None))
