"""Objects of installed packages that go on beside what is tracked: framework objects and simulators.

A learner or an agent that holds a tracked model, such as skorch's net or an algorithm of Stable-Baselines3,
counts, remembers and schedules by itself. An environment with `step` and `reset` is in the state to which the
actions so far have brought it. Neither is in a checkpoint unless a tracked object keeps it.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.training.data.found_generators import is_installed, is_library

if TYPE_CHECKING:
    from trainerd.training.state.audit_coverage import Coverage

_INTEGRATED: Final = frozenset(
    {"transformers", "accelerate", "lightning", "pytorch_lightning", "ignite", "ray"}
)
"""What goes on in the objects of these is the matter of an integration."""
_ATTRIBUTES_MAX: Final = 256


def is_driver(value: Any, coverage: Coverage) -> bool:
    """Tell whether an object of an installed package holds a tracked module or optimizer."""
    if not _is_foreign(value):
        return False
    held = list(vars(value).values())[:_ATTRIBUTES_MAX] if hasattr(value, "__dict__") else []
    return any(
        isinstance(each, torch.nn.Module | torch.optim.Optimizer) and coverage.keeps(each) for each in held
    )


def is_simulator(value: Any) -> bool:
    """Tell whether an object of an installed package is an environment that is stepped and reset."""
    if not _is_foreign(value) or not all(
        callable(getattr(type(value), name, None)) for name in ("step", "reset")
    ):
        return False
    with contextlib.suppress(Exception):  # a property of the package's
        return hasattr(value, "action_space")
    return False


def _is_foreign(value: Any) -> bool:
    kinds = type(value).__mro__
    file = getattr(sys.modules.get(kinds[0].__module__), "__file__", None)
    return (
        isinstance(file, str)
        and is_installed(file)
        and not is_library(kinds[0].__module__)
        and not isinstance(value, torch.nn.Module | torch.optim.Optimizer | type)
        and not any(kind.__module__.partition(".")[0] in _INTEGRATED for kind in kinds)
    )
