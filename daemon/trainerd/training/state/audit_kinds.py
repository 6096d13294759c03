"""Kinds of objects that hold a part of the state of a run beside models and optimizers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.training.state.audit_coverage import SCHEDULERS, memory_of, tensors_in
from trainerd.training.state.live_objects import live_instances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.training.state.audit_coverage import Coverage

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_AVERAGES: Final = frozenset({"ema", "swa", "average", "averaged", "averager", "averaging", "polyak"})
_SCHEDULES: Final = frozenset({"scheduler", "schedule", "sched", "scheduled", "warmup", "noam"})
_INNER: Final = ("optimizer", "_optimizer", "optim", "base_optimizer")


def live_candidates(*, known: list[Any]) -> Iterator[Any]:
    """Yield the live objects that may be a scheduler, a gradient scaler or an average.

    Args:
        known: Objects to look at besides, which the garbage collector may have been told to forget.
    """
    found = {id(value): value for value in live_instances(_is_candidate)}
    found.update((id(value), value) for value in known if _is_candidate(type(value)))
    yield from found.values()


def _is_candidate(kind: type) -> bool:
    try:
        if issubclass(kind, (*SCHEDULERS, torch.amp.GradScaler, torch.optim.swa_utils.AveragedModel)):
            return True
        words = _words(kind)
        is_own = str(kind.__module__).partition(".")[0] not in {"torch", "trainerd"}
        return is_own and bool(words & (_AVERAGES | _SCHEDULES))
    except TypeError:  # what is no class, though it is the type of something
        return False


def _words(kind: type) -> set[str]:
    return {word.lower() for word in _WORD.findall(kind.__name__)} | (
        {"ema"} if "EMA" in kind.__name__ or "Ema" in kind.__name__ else set()
    )


def wrapped_optimizer(value: Any) -> torch.optim.Optimizer | None:
    """Return the optimizer that an object has as an attribute of the usual name."""
    attributes = getattr(value, "__dict__", {})
    for name in _INNER:
        if isinstance(inner := attributes.get(name), torch.optim.Optimizer):
            return inner
    return None


def is_scheduler_of(value: Any, optimizers: set[int]) -> torch.optim.Optimizer | None:
    """Return which of these optimizers, by identity, an object sets the learning rate of; None if of none."""
    if not isinstance(value, SCHEDULERS):
        own = getattr(value, "__dict__", {})
        if not _words(type(value)) & _SCHEDULES or isinstance(value, torch.nn.Module):
            return None
        if any(isinstance(item, SCHEDULERS) for item in own.values()):
            return None  # the scheduler within is looked at by itself
    optimizer: Any = wrapped_optimizer(value)
    while optimizer is not None:
        if id(optimizer) in optimizers:
            return optimizer  # type: ignore[no-any-return]
        inner = wrapped_optimizer(optimizer)
        optimizer = inner if inner is not optimizer else None
    return None


def is_scaler_in_use(scaler: torch.amp.GradScaler) -> bool:
    """Return whether a gradient scaler has scaled a loss."""
    return scaler.is_enabled() and getattr(scaler, "_scale", None) is not None


def average_of(value: Any, coverage: Coverage) -> torch.nn.Module | None:
    """Return the tracked module whose parameters an object averages, None if it averages none."""
    if not isinstance(value, torch.optim.swa_utils.AveragedModel) and not _words(type(value)) & _AVERAGES:
        return None
    for model in coverage.modules:
        shapes = [tuple(parameter.shape) for parameter in model.parameters()]
        trained = [tuple(parameter.shape) for parameter in model.parameters() if parameter.requires_grad]
        own = set(map(id, model.parameters()))
        for tensors in _collections(value):
            found = [tuple(tensor.shape) for tensor in tensors]
            if found and found in (shapes, trained) and not any(id(tensor) in own for tensor in tensors):
                is_kept = all(
                    coverage.keeps_tensor(tensor) for tensor in tensors if memory_of(tensor) is not None
                )
                return None if is_kept else model
    return None


def _collections(value: Any) -> Iterator[list[torch.Tensor]]:
    """Yield the collections of tensors that an object holds: of a module, of a list or of a dict."""
    for item in _held(value):
        if isinstance(item, torch.nn.Module):
            yield list(item.parameters())
        elif isinstance(item, dict | list | tuple):
            yield list(tensors_in(item))


def _held(value: Any) -> Iterator[Any]:
    attributes = dict(getattr(value, "__dict__", {}))
    yield from attributes.get("_modules", {}).values()
    yield from attributes.values()
