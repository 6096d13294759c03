"""The table of answers: one cell for every pair of state and event, filled by the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from trainerd.supervisor.machine.decision import AnyState, Transition, unchanged
from trainerd.supervisor.machine.job_events import Event
from trainerd.supervisor.machine.states import Job

Decider = Callable[[Job, Any, Any, float], Transition]
"""Takes the job, its state, the event and now (seconds since the epoch)."""


@dataclass(frozen=True)
class Cell:
    """The answer to one pair.

    Attributes:
        decide: Answers the event.
        summary: What it does, as documented.
        leads_to: States in which the job may be afterwards, besides the one in which it was.
        is_ignored: Whether the event always changes nothing.
    """

    decide: Decider
    summary: str
    leads_to: tuple[type[AnyState], ...] = ()
    is_ignored: bool = False


TABLE: Final[dict[tuple[type[AnyState], type[Event]], Cell]] = {}

_Events = type[Event] | tuple[type[Event], ...]


def answers(
    *states: type[AnyState], on: _Events, leads_to: tuple[type[AnyState], ...] = ()
) -> Callable[[Decider], Decider]:
    """Register a function as the answer to events in states; its docstring is what the table shows."""

    def register(decider: Decider) -> Decider:
        assert decider.__doc__ is not None
        _fill(states, on, Cell(decider, decider.__doc__.partition("\n")[0], leads_to))
        return decider

    return register


def ignores(*states: type[AnyState], on: _Events, because: str) -> None:
    """Register that events change nothing in states, and why."""

    def ignore(job: Job, _state: AnyState, _event: Event, _now: float) -> Transition:
        return unchanged(job, because)

    _fill(states, on, Cell(ignore, because, is_ignored=True))


def _fill(states: tuple[type[AnyState], ...], on: _Events, cell: Cell) -> None:
    for state in states:
        for event in on if isinstance(on, tuple) else (on,):
            assert (state, event) not in TABLE, f"{state.NAME} has two answers to {event.__name__}"
            TABLE[state, event] = cell
