"""Whether a job gets, keeps or loses its standby: pure, so that every order of events can be tested.

A standby is prepared for one attempt, the next one, under one spec. It is prepared once an attempt has run
for a while, and once an attempt: one that failed is not tried again before the next attempt. It outlives the
attempt only as long as the job waits to be started again by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from trainerd.supervisor.machine.states import BackingOff, Queued, Running, Starting

if TYPE_CHECKING:
    from trainerd.supervisor.machine.states import Job

PREPARE_AFTER_S: Final = 1.0
"""How long an attempt must have run before the standby for the next one is prepared, in seconds."""


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
        act: Prepare one, end the one that is there, or neither.
        words: As `trainerd status` shows it; None if the job asks for none.
    """

    act: Literal["none", "prepare", "dismiss"]
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
    if job.spec is None or job.spec.standby == "off":
        return StandbyChoice(end, None)
    if refusal is not None:
        return StandbyChoice(end, f"none: {refusal}")
    if job.is_held or is_stopping or not isinstance(job.state, Running | Starting | BackingOff | Queued):
        return StandbyChoice(end, f"none while the job is {job.state.NAME}")
    expected = job.attempt if isinstance(job.state, Starting) else job.attempt + 1
    fits = standby is not None and (standby.attempt, standby.spec_digest) == (expected, job.spec.spec_digest)
    if standby is not None and not fits:
        return StandbyChoice("dismiss", "ending: it was prepared for something else")
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
