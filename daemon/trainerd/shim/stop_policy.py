"""What the shim does next: pure, so that every order of signals, endings and deadlines can be tested.

Invariants: a signal goes to living ranks only, never to their data-loading workers. The ranks are told to stop
once per request, since a second time means "now". A deadline, once set, is only ever brought forward.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import Final, Literal

from trainerd.contract import exit_codes

KillReason = Literal["grace", "asked", "peer"]

PEER_LIMIT_S: Final = 10.0
"""How long the peers of a rank that ended badly may take: they may hang in a collective with the dead."""

GOOD_EXIT_CODES: Final = frozenset({exit_codes.FINISHED, exit_codes.DRAINED})
"""Exit codes after which the other ranks may go on: they do not all finish at the same moment."""


@dataclass(frozen=True)
class Forward:
    """Send a signal to ranks."""

    signum: int
    ranks: frozenset[int]


@dataclass(frozen=True)
class Kill:
    """End ranks by SIGKILL, for a reason that the exit record will name."""

    reason: KillReason
    ranks: frozenset[int]


Command = Forward | Kill


@dataclass(frozen=True)
class Conduct:
    """What the shim knows. All times are seconds since it began.

    Attributes:
        grace_s: From the first request to stop until SIGKILL.
        living: Ranks that have not ended.
        stop_requested_s: When a stop was first requested, None if never.
        are_told: Whether the ranks have been told to stop, on request or because a peer ended badly.
        kill_at_s: When the living are killed, None if never.
        kill_reason: Why they will be.
    """

    grace_s: float
    living: frozenset[int]
    stop_requested_s: float | None = None
    are_told: bool = False
    kill_at_s: float | None = None
    kill_reason: KillReason = "grace"


def after_signal(conduct: Conduct, signum: int, now_s: float) -> tuple[Conduct, tuple[Command, ...]]:
    """Answer a request to stop (TERM, INT, USR1) or to end at once (QUIT)."""
    if signum == signal.SIGQUIT:
        return conduct, _kill(conduct, "asked")
    if conduct.stop_requested_s is not None:
        return conduct, _forward(conduct, signum)  # the second one says "now"
    was_told = conduct.are_told
    conduct = _deadline(
        replace(conduct, stop_requested_s=now_s, are_told=True), now_s + conduct.grace_s, "grace"
    )
    return conduct, () if was_told else _forward(conduct, signum)


def after_rank_ended(
    conduct: Conduct, rank: int, now_s: float, *, exit_code: int | None
) -> tuple[Conduct, tuple[Command, ...]]:
    """Answer the end of a rank. `exit_code` is None if a signal ended it or it never started."""
    conduct = replace(conduct, living=conduct.living - {rank})
    if exit_code in GOOD_EXIT_CODES or not conduct.living:
        return conduct, ()
    was_told = conduct.are_told
    limit_s = min(conduct.grace_s, PEER_LIMIT_S)
    conduct = _deadline(replace(conduct, are_told=True), now_s + limit_s, "peer")
    return conduct, () if was_told else _forward(conduct, signal.SIGTERM)


def after_time(conduct: Conduct, now_s: float) -> tuple[Conduct, tuple[Command, ...]]:
    """Answer the passing of time."""
    if conduct.kill_at_s is None or now_s < conduct.kill_at_s:
        return conduct, ()
    return replace(conduct, kill_at_s=None), _kill(conduct, conduct.kill_reason)


def _deadline(conduct: Conduct, at_s: float, reason: KillReason) -> Conduct:
    if conduct.kill_at_s is not None and conduct.kill_at_s <= at_s:
        return conduct
    return replace(conduct, kill_at_s=at_s, kill_reason=reason)


def _forward(conduct: Conduct, signum: int) -> tuple[Command, ...]:
    return (Forward(signum, conduct.living),) if conduct.living else ()


def _kill(conduct: Conduct, reason: KillReason) -> tuple[Command, ...]:
    return (Kill(reason, conduct.living),) if conduct.living else ()
