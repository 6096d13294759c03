"""Whether an attempt stands still: pure.

Invariants:
* An attempt moves as long as any of its ranks does: one that waits for the others is no stall.
* Only silence that was watched counts. What passes between two looks counts for two seconds at most, so that
  a supervisor that was suspended, or a clock that jumped, finds no stall. A page that cannot be read
  changes nothing.
* A plain command says nothing, so it is never judged, unless its spec gives a time; then its output counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from trainerd.contract.heartbeat import Heartbeat, Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

Timeout = float | Literal["auto"] | None

FLOORS_S: Final = {
    Phase.START: 1800.0,
    Phase.STEP: 600.0,
    Phase.EVALUATION: 900.0,
    Phase.CHECKPOINT: 900.0,
    Phase.END: 600.0,
}
"""Silence that is never called a stall under `auto`, in seconds. Draining is not in it: the grace period ends
that."""

LEARNED_FACTOR: Final = 10.0
"""Under `auto`, a silence is a stall when it lasts so many times as long as the longest one that ended by
itself."""

DOUBLINGS_MAX: Final = 8
"""How often `auto` doubles its limits, once for each stall without progress since: it may have been wrong."""

LOOK_GAP_MAX_S: Final = 2.0
"""What passes between two looks counts for so much at most, in seconds."""

CONFIRMED_AFTER_S: Final = 10.0
"""A supervisor that finds an attempt silent watches it at least so long itself, in seconds, if its limit is
longer."""

CONFIRMED_FACTOR: Final = 2.0
"""And at least so many times as long as the longest silence that ended by itself: the next beat may be due
later."""


@dataclass(frozen=True)
class Stall:
    """It stands still.

    Attributes:
        silence_s: For how long, in seconds.
        limit_s: How long that may last.
        doing: What it was doing.
    """

    silence_s: float
    limit_s: float
    doing: Phase

    @property
    def reason(self) -> str:
        """One sentence."""
        return (
            f"nothing moved for {self.silence_s:.0f} s in its phase {self.doing.name.lower()!r}, "
            f"where {self.limit_s:.0f} s are the limit"
        )


@dataclass(frozen=True)
class Sight:
    """What one look saw.

    Attributes:
        beats: What each rank last said; None where there is nothing to read.
        log_bytes: Size of each rank's log, which counts for those who never say anything.
    """

    beats: tuple[Heartbeat | None, ...]
    log_bytes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Watch:
    """What is known of the silence of one attempt.

    Attributes:
        timeout: As in the spec: seconds, "auto", or None for never.
        longest_s: Longest silence that ended by itself, by what was being done, over earlier attempts.
        has_session: Whether this job is known to use the training API.
        stalls: Stalled attempts in a row without progress, before this one.
        beats: How often each rank had beaten when that was seen last; None if it had not.
        log_bytes: Size of each rank's log then.
        silence_s: For how long nothing has moved.
        watched_s: How much of that was watched by this very supervisor.
        looked_s: When it looked last, by the clock that does not jump; None before the first look.
    """

    timeout: Timeout
    longest_s: tuple[float, ...] = (0.0,) * len(Phase)
    has_session: bool = False
    stalls: int = 0
    beats: tuple[int | None, ...] = ()
    log_bytes: tuple[int, ...] = ()
    silence_s: float = 0.0
    watched_s: float = 0.0
    looked_s: float | None = None


def learned(beats: Sequence[Heartbeat]) -> tuple[float, ...]:
    """Return the longest silence that ended by itself, by what was being done."""
    return tuple(
        max((beat.longest_silences_s[phase] for beat in beats), default=0.0) for phase in range(len(Phase))
    )


def after_look(watch: Watch, sight: Sight, now_s: float) -> tuple[Watch, Stall | None]:
    """Take in what was seen; return whether that is a stall.

    Args:
        watch: The watch so far.
        sight: What was seen.
        now_s: By CLOCK_MONOTONIC, which does not count while the machine is suspended.
    """
    if any(now is None and before is not None for before, now in zip(watch.beats, sight.beats, strict=False)):
        return replace(watch, looked_s=now_s), None  # gone blind
    beats = tuple(beat.beats if beat is not None else None for beat in sight.beats)
    said = [beat for beat in sight.beats if beat is not None]
    has_moved = beats != watch.beats or (not said and sight.log_bytes != watch.log_bytes)
    looked_s = watch.looked_s
    if looked_s is None:
        # Of a beat before this supervisor's first look it is known when it was.
        silence_s = min((max(now_s - beat.beat_monotonic_ns / 1e9, 0.0) for beat in said), default=0.0)
        watch = replace(watch, silence_s=silence_s, watched_s=0.0)
    elif has_moved:
        watch = replace(watch, silence_s=0.0, watched_s=0.0)
    else:
        passed_s = min(max(now_s - looked_s, 0.0), LOOK_GAP_MAX_S)
        watch = replace(watch, silence_s=watch.silence_s + passed_s, watched_s=watch.watched_s + passed_s)
    has_session = watch.has_session or bool(said)
    watch = replace(watch, beats=beats, log_bytes=sight.log_bytes, looked_s=now_s, has_session=has_session)
    limit_s, doing = silence_limit_s(watch, sight.beats)
    if limit_s is None or watch.silence_s < limit_s:
        return watch, None
    longest_s = max(watch.longest_s[doing], learned(said)[doing])
    if watch.watched_s < min(limit_s, max(CONFIRMED_AFTER_S, CONFIRMED_FACTOR * longest_s)):
        return watch, None
    return watch, Stall(watch.silence_s, limit_s, doing)


def silence_limit_s(watch: Watch, beats: Sequence[Heartbeat | None]) -> tuple[float | None, Phase]:
    """Return how long the silence may last, None for ever, and what is being done."""
    doings = {beat.doing if beat is not None else Phase.START for beat in beats} or {Phase.START}
    doings = doings - {Phase.END} or doings
    if Phase.DRAIN in doings:
        return None, Phase.DRAIN
    if watch.timeout is None:
        return None, min(doings)
    if watch.timeout != "auto":
        return watch.timeout, max(doings)
    if not watch.has_session:
        return None, Phase.START
    longest_s = [
        max(before, now)
        for before, now in zip(watch.longest_s, learned([b for b in beats if b is not None]), strict=True)
    ]
    limits_s = {doing: max(FLOORS_S[doing], LEARNED_FACTOR * longest_s[doing]) for doing in doings}
    doing = max(limits_s, key=lambda doing: limits_s[doing])
    return limits_s[doing] * 2.0 ** min(watch.stalls, DOUBLINGS_MAX), doing
