"""How long the supervisor waits when it leaves, and what it does meanwhile: pure.

What a job's drain will take is told from its earlier ones: an exit record says when the stop was asked for
and when the last rank was gone. A job that was never drained may need all of its grace period.

Where there is less time than that (a limit is configured, a machine is about to be taken), the ranks are told
"now" while a save still fits, so that the newest copy in memory is written instead of nothing; a process
left at the very end is killed, since the machine would do it anyway. systemd is asked for more time a little
at a time, and only while something moves or may still be within its grace: a supervisor that hangs is not
waited for.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

PREDICTION_FACTOR: Final = 1.5
"""A drain may take longer than the longest of the earlier ones."""

LEAVE_S: Final = 2.0
"""For the supervisor itself, from the last kill to its own end."""

UNKNOWN_SHARE: Final = 0.5
"""Of the time there is, how much is kept for saves of which nothing is known."""

EXTENSION_S: Final = 15.0
"""How much time systemd is asked for at once."""

EXTEND_EVERY_S: Final = 5.0
"""How often it is asked."""

SLURM_END: Final = "SLURM_JOB_END_TIME"
"""Variable in which Slurm says when the job's time is over, in seconds since the epoch."""

STILL_LIMIT_S: Final = 10.0
"""After all grace periods, how long nothing may move before no more time is asked for."""


@dataclass(frozen=True)
class Prospect:
    """A job that is to be drained.

    Attributes:
        name: The job.
        grace_s: Its grace period.
        earlier_s: What its earlier drains took, newest last.
    """

    name: str
    grace_s: float
    earlier_s: tuple[float, ...] = ()

    @property
    def predicted_s(self) -> float | None:
        """What this one will probably take at most, None if nothing is known."""
        return min(max(self.earlier_s) * PREDICTION_FACTOR, self.grace_s) if self.earlier_s else None

    @property
    def expected_s(self) -> float:
        """What this one will probably take at most: all of its grace period if nothing is known."""
        return self.grace_s if self.predicted_s is None else self.predicted_s


@dataclass(frozen=True)
class DrainPlan:
    """What is done when, in seconds since the drain began.

    Attributes:
        predicted_s: When the last job will probably be gone.
        graces_end_s: When the last grace period ends.
        hurry_s: When the ranks are told "now", None if there is time for all of it.
        kill_s: When the processes that are left are killed, None if that is left to the shims.
        limit_s: When the supervisor leaves, with or without them.
        too_short_for: Jobs that will probably not have saved in time.
    """

    predicted_s: float
    graces_end_s: float
    hurry_s: float | None
    kill_s: float | None
    limit_s: float
    too_short_for: tuple[str, ...] = ()


def time_given_s(
    limit_s: float | None,
    environ: Mapping[str, str],
    now_wall_s: float,
    *,
    taken_wall_s: float | None = None,
) -> float | None:
    """Return all the time there is, in seconds, None if nothing limits it.

    Args:
        limit_s: What is configured.
        environ: Of the supervisor: a Slurm job is told there when it will be ended.
        now_wall_s: Seconds since the epoch.
        taken_wall_s: When the machine is taken, in seconds since the epoch; None if that is not known.
    """
    limits = [] if limit_s is None else [limit_s]
    if taken_wall_s is not None:
        limits.append(max(taken_wall_s - now_wall_s, 0.0))
    end = environ.get(SLURM_END, "")
    if end.isascii() and end.isdigit():
        limits.append(max(int(end) - now_wall_s, 0.0))
    return min(limits, default=None)


def drain_plan(prospects: Sequence[Prospect], *, given_s: float | None, margin_s: float) -> DrainPlan:
    """Plan a drain.

    Args:
        prospects: Who is to be drained.
        given_s: All the time there is, None if the jobs' own grace periods decide.
        margin_s: How long after the last grace period shims are waited for.
    """
    graces_end_s = max((prospect.grace_s for prospect in prospects), default=0.0)
    predicted_s = max((prospect.expected_s for prospect in prospects), default=0.0)
    limit_s = graces_end_s + margin_s
    if given_s is None or given_s >= graces_end_s + LEAVE_S:
        return DrainPlan(predicted_s, graces_end_s, None, None, min(limit_s, given_s or limit_s))
    kill_s = max(given_s - LEAVE_S, 0.0)
    known = [p for prospect in prospects for p in [prospect.predicted_s] if p is not None]
    is_all_known = len(known) == len(prospects)
    reserve_s = max(max(known, default=0.0), 0.0 if is_all_known else kill_s * UNKNOWN_SHARE)
    return DrainPlan(
        predicted_s=predicted_s,
        graces_end_s=graces_end_s,
        hurry_s=max(kill_s - reserve_s, 0.0),
        kill_s=kill_s,
        limit_s=given_s,
        too_short_for=tuple(
            prospect.name for prospect in prospects if (prospect.predicted_s or 0.0) > kill_s
        ),
    )


@dataclass(frozen=True)
class Extend:
    """Ask systemd for time: from now on, at least so much."""

    by_s: float


@dataclass(frozen=True)
class Hurry:
    """Tell the ranks "now"."""


@dataclass(frozen=True)
class KillAll:
    """End the processes that are left."""


Act = Extend | Hurry | KillAll


@dataclass(frozen=True)
class DrainWatch:
    """A drain in progress.

    Attributes:
        plan: What was planned.
        seen: What the jobs showed last; any change is movement.
        moved_s: When that last changed.
        extended_s: When systemd was last asked, None before the first time.
        is_hurried: Whether the ranks have been told "now".
        has_killed: Whether the processes that were left have been killed.
    """

    plan: DrainPlan
    seen: Hashable = None
    moved_s: float = 0.0
    extended_s: float | None = None
    is_hurried: bool = False
    has_killed: bool = False


def watch(state: DrainWatch, seen: Hashable, now_s: float) -> tuple[DrainWatch, tuple[Act, ...]]:
    """Answer the passing of time.

    Args:
        state: The drain.
        seen: What the jobs show now: who is left, and their heartbeats.
        now_s: Seconds since the drain began.
    """
    plan, acts = state.plan, list[Act]()
    if seen != state.seen:
        state = replace(state, seen=seen, moved_s=now_s)
    if plan.kill_s is not None and now_s >= plan.kill_s and not state.has_killed:
        state = replace(state, has_killed=True, is_hurried=True)
        acts.append(KillAll())
    elif plan.hurry_s is not None and now_s >= plan.hurry_s and not state.is_hurried:
        state = replace(state, is_hurried=True)
        acts.append(Hurry())
    is_due = state.extended_s is None or now_s >= state.extended_s + EXTEND_EVERY_S
    if is_due and _deserves_time(state, now_s):
        state = replace(state, extended_s=now_s)
        acts.append(Extend(EXTENSION_S))
    return state, tuple(acts)


def _deserves_time(state: DrainWatch, now_s: float) -> bool:
    if now_s >= state.plan.limit_s:
        return False
    return now_s < state.plan.graces_end_s or now_s - state.moved_s < STILL_LIMIT_S
