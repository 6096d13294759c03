"""Whether a job gets, keeps or loses its standby: pure, so that every order of events can be tested.

A standby is prepared for one attempt, the next one, under one spec. It is prepared once an attempt has run
for a while, and once an attempt: one that failed is not tried again before the next attempt. It outlives the
attempt as long as the job waits to be started again by itself, and for a while if it waits for its user, who
may have edited the script. When its job has ended, or its spec was edited, it is kept for a while as the
*spare*: any job that asks for a standby may begin in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from trainerd.supervisor.machine.states import (
    BackingOff,
    Draining,
    Finished,
    Parked,
    Queued,
    Rejected,
    Running,
    Starting,
    Stopped,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from trainerd.supervisor.machine.states import Job

_GIB: Final = 1024**3

PREPARE_AFTER_S: Final = 1.0
"""How long an attempt must have run before the standby for the next one is prepared, in seconds."""

REST_LIMIT_S: Final = 900.0
"""How long one is kept as the spare, or while the job is stopped, parked or rejected, in seconds: a change
may be tried."""


@dataclass(frozen=True)
class StandbyState:
    """A standby as it is.

    Attributes:
        attempt: Number of the attempt that it is for.
        spec_digest: Of the spec under which it was prepared.
        phase: Whether its imports are under way, it waits, or it has ended without being used.
        detail: Why it has ended, or what it holds.
    """

    attempt: int
    spec_digest: str
    phase: Literal["preparing", "ready", "failed"]
    detail: str = ""


@dataclass(frozen=True)
class StandbyChoice:
    """What to do, and how the standby of the job is in words.

    Attributes:
        act: Prepare one, end the one that is there, make it the spare, or none of these.
        words: As `trainerd status` shows it; None if the job asks for none.
    """

    act: Literal["none", "prepare", "dismiss", "release"]
    words: str | None


def choose(
    job: Job,
    standby: StandbyState | None,
    *,
    refusal: str | None,
    has_note: bool,
    now_wall_s: float,
    is_stopping: bool,
) -> StandbyChoice:
    """Return what to do about the standby of a job.

    Args:
        job: The job.
        standby: Its standby, None if it has none.
        refusal: Why it can have none; None if it can.
        has_note: Whether the running attempt has noted what it imported.
        now_wall_s: Seconds since the epoch.
        is_stopping: Whether the supervisor starts nothing any more.
    """
    end: Literal["none", "dismiss"] = "none" if standby is None else "dismiss"
    may_be_spare = standby is not None and standby.phase == "ready"
    if job.spec is None or job.spec.standby == "off":
        return StandbyChoice(end, None)
    if refusal is not None:
        return StandbyChoice(end, f"none: {refusal}")
    if job.is_held or is_stopping or not _may_go_on(job, now_wall_s):
        has_ended = isinstance(job.state, Finished) and not is_stopping
        act: Literal["none", "dismiss", "release"] = "release" if has_ended and may_be_spare else end
        return StandbyChoice(act, f"none while the job is {job.state.NAME}")
    expected = job.attempt if isinstance(job.state, Starting) else job.attempt + 1
    fits = standby is not None and (standby.attempt, standby.spec_digest) == (expected, job.spec.spec_digest)
    if standby is not None and not fits:
        return StandbyChoice(
            "release" if may_be_spare else "dismiss", "none: it was prepared for something else"
        )
    if standby is not None:
        words = {"preparing": "being prepared", "ready": "ready", "failed": "none"}[standby.phase]
        return StandbyChoice("none", f"{words}: {standby.detail}" if standby.detail else words)
    if not isinstance(job.state, Running) or job.state.is_stalled:
        return StandbyChoice("none", f"none while the job is {job.state.NAME}")
    if job.attempt_digest != job.spec.spec_digest:
        return StandbyChoice("none", "none: the spec has changed")
    if now_wall_s - job.since_wall_s < PREPARE_AFTER_S:
        return StandbyChoice("none", f"prepared when the attempt has run for {PREPARE_AFTER_S:g} s")
    if not has_note:
        return StandbyChoice("none", "none: no session of the job has noted what it imports yet")
    return StandbyChoice("prepare", "being prepared")


def _may_go_on(job: Job, now_wall_s: float) -> bool:
    """Return whether the job may be started again soon."""
    if isinstance(job.state, Stopped | Parked | Rejected):
        return now_wall_s - job.since_wall_s < REST_LIMIT_S
    return isinstance(job.state, Running | Starting | BackingOff | Queued | Draining)


def why_no_room(
    job: Job,
    jobs: Iterable[Job],
    with_standby: Collection[str],
    *,
    memory_bytes: int | None,
    waiting_bytes: int,
) -> str | None:
    """Return why the memory for jobs has no room for the standby of one that has a limit; None if it has.

    What jobs occupy comes first, so that no job waits for the memory of a standby. A job without a limit
    occupies none, and neither does its standby.

    Args:
        job: Whose standby it is.
        jobs: All jobs.
        with_standby: Names of those that have one.
        memory_bytes: What there is for jobs; None is no limit.
        waiting_bytes: What a standby may hold until it is used.
    """
    if memory_bytes is None or _limit_bytes(job) == 0:
        return None
    taken = sum(_limit_bytes(each) for each in jobs if each.is_live)
    others = sum(
        min(_limit_bytes(each), waiting_bytes)
        for each in jobs
        if each.name in with_standby and each.name != job.name
    )
    needed = min(_limit_bytes(job), waiting_bytes)
    if taken + others + needed <= memory_bytes:
        return None
    return (
        f"it may hold {needed / _GIB:.1f} GiB, and jobs and other standbys have "
        f"{(taken + others) / _GIB:.1f} of {memory_bytes / _GIB:.1f} GiB"
    )


def _limit_bytes(job: Job) -> int:
    return (job.spec.resources.memory_bytes or 0) if job.spec is not None else 0
