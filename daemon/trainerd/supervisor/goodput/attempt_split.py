"""The time of one attempt in buckets. Pure.

Invariant: the pieces add up to the time that the attempt took, whatever its page says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract.heartbeat import Phase

if TYPE_CHECKING:
    from trainerd.contract.heartbeat import Heartbeat

BUCKETS: Final = ("starting", "loading", "useful", "repeated", "saving", "waiting", "down")

_ENDS_WELL: Final = frozenset({"finished", "drained", "stopped"})

_BY_PHASE: Final = {
    Phase.START: "loading",
    Phase.STEP: "useful",
    Phase.EVALUATION: "useful",
    Phase.CHECKPOINT: "saving",
    Phase.DRAIN: "saving",
    Phase.END: "saving",
}


@dataclass(frozen=True)
class AttemptTimes:
    """What is known of the time of an attempt.

    Attributes:
        attempt: Its number.
        started_wall_s: When it was launched, seconds since the epoch.
        ended_wall_s: When it ended; None while it lives.
        ending: Class of its ending; None while it lives, or if that is not known.
        beat: What its rank 0 said last.
    """

    attempt: int
    started_wall_s: float
    ended_wall_s: float | None = None
    ending: str | None = None
    beat: Heartbeat | None = None

    @property
    def is_told(self) -> bool:
        """Whether its rank has noted where the time went."""
        return self.beat is not None and self.beat.opened_wall_s > 0

    @property
    def ended_well(self) -> bool:
        """Whether it ended without a fault."""
        return self.ending in _ENDS_WELL


def split_attempt(attempt: AttemptTimes, total_s: float, *, is_of_a_session: bool) -> dict[str, float]:
    """Return the seconds of an attempt by bucket; they add up to `total_s`.

    Args:
        attempt: The attempt.
        total_s: How long it took.
        is_of_a_session: Whether other attempts of the run opened a session: this one was not training then.
    """
    beat = attempt.beat
    if beat is None or not attempt.is_told:
        return {_whole(attempt, is_of_a_session=is_of_a_session): total_s}
    pieces = dict.fromkeys(BUCKETS, 0.0)
    pieces["starting"] = max(beat.opened_wall_s - attempt.started_wall_s, 0.0)
    for phase, bucket in _BY_PHASE.items():
        pieces[bucket] += beat.spent_s[phase]
    pieces["repeated"] = min(beat.repeated_s, beat.spent_s[Phase.STEP])
    pieces["useful"] = max(pieces["useful"] - pieces["repeated"], 0.0)
    told_s = sum(pieces.values())
    if told_s > total_s or not math.isfinite(told_s):  # another clock: its proportions are what is known
        return _scaled(pieces, total_s)
    pieces[_tail(attempt, beat)] += total_s - told_s
    return pieces


def _whole(attempt: AttemptTimes, *, is_of_a_session: bool) -> str:
    """Return the bucket of an attempt of which only beginning and end are known."""
    if is_of_a_session:
        return "starting"
    return "useful" if attempt.ended_well or attempt.ended_wall_s is None else "down"


def _tail(attempt: AttemptTimes, beat: Heartbeat) -> str:
    """Return the bucket of the time after the last beat."""
    if attempt.ended_wall_s is not None:
        return "saving" if attempt.ended_well else "down"
    if beat.doing is Phase.STEP and beat.step < beat.furthest_step:
        return "repeated"
    return _BY_PHASE[beat.doing]


def _scaled(pieces: dict[str, float], total_s: float) -> dict[str, float]:
    largest = max(pieces.values())
    if not 0 < largest < math.inf:
        return {"starting": total_s}
    parts = {bucket: seconds / largest for bucket, seconds in pieces.items()}
    whole = sum(parts.values())
    return {bucket: total_s * part / whole for bucket, part in parts.items()}
