"""What is done about notices that the machine is taken: pure.

Jobs leave in the order of their priority, so that the save of an important one shares the disk with no other:
the next is asked when those before it have gone, or when its own drain would else not fit before the
deadline. No job is started until every notice is cancelled or has passed. A source that could not be asked
says nothing: what it said last stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from trainerd.supervisor.preemption_notices.taking import Taking

PASSED_S: Final = 120.0
"""So long after its deadline a machine that is still there was not taken, in seconds."""

HURRY_S: Final = 10.0
"""So long before the end of the notice, less its margin, the ranks are told to save now, in seconds."""


@dataclass(frozen=True)
class LiveJob:
    """A job that has processes.

    Attributes:
        name: The job.
        priority: Higher leaves first.
        predicted_s: How long its drain will probably take at most, in seconds.
    """

    name: str
    priority: int
    predicted_s: float


@dataclass(frozen=True)
class TakingState:
    """What is known.

    Attributes:
        notices: The newest answer of each source, by its name.
        active: Notices that have been announced and hold.
        passed: Notices whose deadline has passed, as long as they are given.
        asked: Jobs that were asked to leave.
        since_wall_s: When the first of the notices that hold was seen; None without one.
        hurried: Jobs whose ranks were told to save now.
    """

    notices: Mapping[str, tuple[Taking, ...]] = field(default_factory=dict)
    active: frozenset[Taking] = frozenset()
    passed: frozenset[Taking] = frozenset()
    asked: frozenset[str] = frozenset()
    since_wall_s: float | None = None
    hurried: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TakingActs:
    """What is to be done now.

    Attributes:
        new: Notices to be announced.
        cancelled: Notices that no longer hold: taken back.
        passed: Notices that no longer hold: the machine is still there.
        drain: Jobs to be asked to leave, in this order.
        hurry: Jobs whose ranks are to be told to save now.
        why: Why no job is started; empty if jobs are.
        is_draining: Whether running jobs leave.
        deadline_wall_s: When the machine is taken, None if that is not known or it is not.
    """

    new: tuple[Taking, ...] = ()
    cancelled: tuple[Taking, ...] = ()
    passed: tuple[Taking, ...] = ()
    drain: tuple[str, ...] = ()
    hurry: tuple[str, ...] = ()
    why: str = ""
    is_draining: bool = False
    deadline_wall_s: float | None = None


def decide_taking(
    state: TakingState,
    seen: Mapping[str, tuple[Taking, ...]],
    jobs: Sequence[LiveJob],
    *,
    now_wall_s: float,
    margin_s: float,
) -> tuple[TakingState, TakingActs]:
    """Answer what sources say and the passing of time.

    Args:
        state: What is known.
        seen: What sources have answered since the last call; those that could not be asked are left out.
        jobs: Jobs that have processes.
        now_wall_s: Seconds since the epoch.
        margin_s: How long before the deadline all jobs are to have left, in seconds.
    """
    notices = {**state.notices, **seen}
    given = frozenset(notice for answer in notices.values() for notice in answer)
    passed = frozenset(
        notice for notice in given if notice in state.passed or _has_passed(notice, now_wall_s)
    )
    active = given - passed
    new, over = _in_order(active - state.active), state.active - active
    if not active:
        after = TakingState(notices, active, passed)
        return after, TakingActs(new, _in_order(over - passed), _in_order(over & passed))
    since_s = now_wall_s if state.since_wall_s is None else state.since_wall_s
    draining = [notice for notice in active if notice.drains]
    deadline_s = min(
        (one.deadline_wall_s for one in draining if one.deadline_wall_s is not None), default=None
    )
    asked, hurried = (state.asked, state.hurried) if draining else (frozenset[str](), frozenset[str]())
    drain: tuple[str, ...] = ()
    hurry: tuple[str, ...] = ()
    if draining:
        end_s = None if deadline_s is None else deadline_s - margin_s
        is_late = end_s is not None and _is_late(since_s, end_s, now_wall_s)
        drain = _next_to_leave(jobs, asked, None if is_late else end_s, now_wall_s)
        # Those that are asked now have yet to get the first signal.
        hurry = tuple(job.name for job in jobs if is_late and job.name in asked - hurried)
    first = min(active, key=lambda one: (not one.drains, one.deadline_wall_s or now_wall_s, one.key))
    after = TakingState(
        notices,
        active,
        passed,
        asked | frozenset(drain),
        since_s,
        hurried | frozenset(hurry),
    )
    return after, TakingActs(
        new,
        _in_order(over - passed),
        _in_order(over & passed),
        drain,
        hurry,
        first.text(now_wall_s),
        bool(draining),
        deadline_s,
    )


def _next_to_leave(
    jobs: Sequence[LiveJob], asked: frozenset[str], end_s: float | None, now_s: float
) -> tuple[str, ...]:
    """Return who is to be asked now: whose turn it is, and who could not wait for theirs any longer."""
    leaving: list[str] = []
    is_behind_another = False
    for job in sorted(jobs, key=lambda one: (-one.priority, one.name)):
        if job.name in asked:
            is_behind_another = True
        elif end_s is None or not is_behind_another or now_s >= end_s - job.predicted_s:
            leaving.append(job.name)
            is_behind_another = True
    return tuple(leaving)


def _is_late(since_s: float, end_s: float, now_s: float) -> bool:
    return now_s >= end_s - min(HURRY_S, max(end_s - since_s, 0.0) / 2)


def _has_passed(notice: Taking, now_s: float) -> bool:
    return notice.deadline_wall_s is not None and now_s >= notice.deadline_wall_s + PASSED_S


def _in_order(notices: frozenset[Taking]) -> tuple[Taking, ...]:
    return tuple(sorted(notices, key=lambda one: (one.source, one.key)))
