"""The goodput ledger: every second of a run in one bucket, and the buckets add up to its wall time. Pure.

=============  ==============================================================================================
bucket         holds the time
=============  ==============================================================================================
``starting``   from the launch of an attempt until its session is open: interpreter, imports, the script's own
``loading``    from there until the first step is done: restoring, the first batch, compilers that warm up
``useful``     of steps that no attempt had done before, and of evaluation
``repeated``   of steps that an earlier attempt had done and lost
``saving``     in which training waits for a save, and of draining and finishing
``waiting``    without an attempt, for a slot, for room on the disk or for a person: queued, stopped, paused
``down``       lost with a fault: an attempt that dies or hangs, backing off, parked, no supervisor
=============  ==============================================================================================

The time in which a run is finished belongs to no bucket and is not part of its wall time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from trainerd.contract.heartbeat import Phase
from trainerd.supervisor.goodput.attempt_split import BUCKETS, AttemptTimes, split_attempt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_DOWN: Final = frozenset({"backing-off", "parked", "rejected", "faulted", "starting", "running"})
"""States that count as lost where no attempt lives; the last two until it is noticed that it has ended."""


@dataclass(frozen=True)
class StateChange:
    """An event of the job's history.

    Attributes:
        wall_s: When, seconds since the epoch.
        state: State of the job from then on.
        event: Name of what led to it.
    """

    wall_s: float
    state: str
    event: str = ""


@dataclass(frozen=True)
class Goodput:
    """Where the time of a run went.

    Attributes:
        buckets: Seconds by bucket.
        wall_s: Wall time of the run in seconds, without the time in which it was finished.
        share: The part of it that was useful; None of a run that has not begun.
        attempts: How many attempts were counted.
        lost_steps: Steps that were run and then lost, all attempts together.
        return_s: From the end of the newest attempt that died until the next had done a step, in seconds.
        step_s: Mean time of a step of the newest attempt, in seconds; None before its second step.
        silent_attempts: Attempts that left no times: of those only beginning and end are known.
    """

    buckets: dict[str, float] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0.0))
    wall_s: float = 0.0
    share: float | None = None
    attempts: int = 0
    lost_steps: int = 0
    return_s: float | None = None
    step_s: float | None = None
    silent_attempts: tuple[int, ...] = ()


def goodput_of(
    attempts: Sequence[AttemptTimes], changes: Sequence[StateChange], *, now_wall_s: float
) -> Goodput:
    """Return where the time of a run went until now.

    Args:
        attempts: Its attempts, by number.
        changes: Its history, oldest first; the run begins with the first of all.
        now_wall_s: Seconds since the epoch.
    """
    starts = [each.started_wall_s for each in attempts[:1]] + [each.wall_s for each in changes[:1]]
    if not starts:
        return Goodput()
    speaks = any(each.is_told for each in attempts)
    buckets = dict.fromkeys(BUCKETS, 0.0)
    at_s = min(starts)
    previous: AttemptTimes | None = None
    gaps = _Gaps(changes)
    for attempt, begin_s, end_s in _disjoint(attempts, at_s, now_wall_s):
        _add(buckets, gaps.pieces(at_s, begin_s, previous))
        _add(buckets, split_attempt(attempt, end_s - begin_s, is_of_a_session=speaks).items())
        at_s, previous = end_s, attempt
    if previous is None or previous.ended_wall_s is not None:
        _add(buckets, gaps.pieces(at_s, max(now_wall_s, at_s), previous))
    wall_s = sum(buckets.values())
    return Goodput(
        buckets=buckets,
        wall_s=wall_s,
        share=buckets["useful"] / wall_s if wall_s > 0 else None,
        attempts=len(attempts),
        lost_steps=_lost_steps(attempts),
        return_s=_return_s(attempts),
        step_s=_step_s(attempts),
        silent_attempts=tuple(each.attempt for each in attempts if not each.is_told),
    )


def _disjoint(
    attempts: Sequence[AttemptTimes], begin_s: float, now_s: float
) -> Iterator[tuple[AttemptTimes, float, float]]:
    """Yield attempts with begin and end, none of which overlap: clocks jump, and records have two writers."""
    at_s = begin_s
    for attempt, following in itertools.zip_longest(attempts, attempts[1:]):
        limit_s = now_s if following is None else min(following.started_wall_s, now_s)
        begin_s = max(at_s, attempt.started_wall_s)
        end_s = now_s if attempt.ended_wall_s is None else attempt.ended_wall_s
        at_s = max(begin_s, min(end_s, limit_s))
        yield attempt, begin_s, at_s


class _Gaps:
    """Buckets of the times in which no attempt lived, asked for in order: each change is looked at once.

    Args:
        changes: History of the job, oldest first.
    """

    def __init__(self, changes: Sequence[StateChange]) -> None:
        self._changes = changes
        self._next = 0
        self._bucket: str | None = None
        self._is_leaving = False

    def pieces(
        self, begin_s: float, end_s: float, previous: AttemptTimes | None
    ) -> Iterator[tuple[str, float]]:
        """Yield the buckets of the time between two attempts."""
        if end_s <= begin_s:
            return
        if not self._next:
            self._bucket = _bucket_after(previous)
        at_s = begin_s
        while self._next < len(self._changes) and self._changes[self._next].wall_s < end_s:
            change = self._changes[self._next]
            self._next += 1
            if change.wall_s > at_s:
                yield from _piece(self._bucket, change.wall_s - at_s)
                at_s = change.wall_s
            if change.state == "draining":
                self._is_leaving |= change.event == "ShutdownAsked"
            self._bucket = _bucket_of(change.state, is_leaving=self._is_leaving)
            # The ending of an attempt that a leaving supervisor drained is its last word; the next is
            # another's.
            self._is_leaving = self._is_leaving and change.state == "draining"
        yield from _piece(self._bucket, end_s - at_s)


def _bucket_after(previous: AttemptTimes | None) -> str | None:
    """Return the bucket of the time after an attempt where the history says nothing."""
    if previous is None:
        return "waiting"
    if previous.ending == "finished":
        return None
    return "waiting" if previous.ended_well else "down"


def _piece(bucket: str | None, seconds: float) -> Iterator[tuple[str, float]]:
    if bucket is not None:
        yield bucket, seconds


def _bucket_of(state: str, *, is_leaving: bool) -> str | None:
    if state == "finished":
        return None
    return "down" if is_leaving or state in _DOWN else "waiting"


def _add(buckets: dict[str, float], pieces: Iterable[tuple[str, float]]) -> None:
    for bucket, seconds in pieces:
        buckets[bucket] += seconds


def _lost_steps(attempts: Sequence[AttemptTimes]) -> int:
    lost, reached = 0, 0
    for beat in (each.beat for each in attempts):
        if beat is not None and beat.resumed_step >= 0:
            lost += max(reached - beat.resumed_step, 0)
            reached = beat.step
    return lost


def _return_s(attempts: Sequence[AttemptTimes]) -> float | None:
    for before, after in reversed(list(itertools.pairwise(attempts))):
        beat = after.beat
        if before.ended_well or before.ended_wall_s is None or beat is None or not after.is_told:
            continue
        if beat.step > beat.resumed_step >= 0:
            return max(beat.opened_wall_s + beat.spent_s[Phase.START] - before.ended_wall_s, 0.0)
    return None


def _step_s(attempts: Sequence[AttemptTimes]) -> float | None:
    beat = attempts[-1].beat if attempts else None
    if beat is None or beat.resumed_step < 0 or beat.step - beat.resumed_step < 2:
        return None
    # The first step counts to the start.
    return beat.spent_s[Phase.STEP] / (beat.step - beat.resumed_step - 1)
