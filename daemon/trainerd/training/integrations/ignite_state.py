"""What of an Ignite engine, its metrics and its handlers belongs to the state of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from ignite.metrics import Frequency, Metric

from trainerd.training.state.tensors import is_encodable
from trainerd.training.state.tracked import Stateful

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_IGNITE: Final = frozenset(
    {
        "batch",
        "dataloader",
        "epoch",
        "epoch_length",
        "iteration",
        "max_epochs",
        "max_iters",
        "metrics",
        "output",
        "seed",
        "times",
    }
)
"""Attributes of `ignite.engine.State` that are not the user's."""


class EngineState:
    """What of a trainer belongs to the run: its counters, metrics and attributes of the user's.

    Attributes:
        saved: What the checkpoint holds, None in a fresh run.
        is_waiting: Whether the engine does not have the saved counters yet.
    """

    def __init__(self, trainer: Any) -> None:
        self.saved: dict[str, Any] | None = None
        self.is_waiting = False
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """Return the counters, and the metrics and attributes that a checkpoint can hold."""
        if self.is_waiting and self.saved is not None:
            return self.saved
        state = self._trainer.state
        return {
            "iteration": state.iteration,
            "epoch_length": state.epoch_length,
            "max_epochs": state.max_epochs,
            "max_iters": state.max_iters,
            "should_terminate": self._trainer.should_terminate,
            "metrics": plain_part(state.metrics),
            "attributes": plain_part(
                {name: value for name, value in vars(state).items() if name not in _OF_IGNITE}
            ),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the metrics and attributes back. The counters are put into the engine before it runs."""
        if self.saved is None:
            self.is_waiting = True
        self.saved = state
        self._trainer.state.metrics.update(state["metrics"])
        for name, value in state["attributes"].items():
            setattr(self._trainer.state, name, value)


class PlainAttributes:
    """The attributes of a metric that a checkpoint can hold.

    Not its own ``state_dict``: a metric of the user's often has none, and then that is empty.
    """

    def __init__(self, metric: Any) -> None:
        self.metric = metric

    def state_dict(self) -> dict[str, Any]:
        """Return the attributes."""
        return plain_part(vars(self.metric))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the attributes back."""
        vars(self.metric).update(state)


def plain_part(values: dict[str, Any]) -> dict[str, Any]:
    """Return what of `values` a checkpoint can hold."""
    return {name: value for name, value in values.items() if isinstance(name, str) and is_encodable(value)}


def stateful_handlers(engine: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is attached to an engine and has state, each with the name of its class."""
    seen: set[int] = set()
    for handlers in engine._event_handlers.values():  # noqa: SLF001 - Ignite has no public list of them
        for handler, *_ in handlers:
            owner = _owner_of(handler)
            if owner is None or owner is engine or id(owner) in seen:
                continue
            seen.add(id(owner))
            name = type(owner).__name__
            if isinstance(owner, Metric):
                if not isinstance(owner, Frequency):  # it measures time
                    yield name, PlainAttributes(owner)
            elif isinstance(getattr(owner, "ema_model", None), torch.nn.Module):
                yield name, owner.ema_model
            elif isinstance(owner, Stateful) and not isinstance(owner, type):
                yield name, owner


def _owner_of(handler: Any) -> Any:
    """Return the object that a handler is, or is a method of; behind the wrapper of a filtered event."""
    parent = getattr(handler, "_parent", None)
    if parent is not None:
        handler = parent()
    handler = getattr(handler, "func", handler)  # functools.partial
    return getattr(handler, "__self__", handler)
