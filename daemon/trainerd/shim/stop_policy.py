"""What the shim does next: pure, so that every order of signals, endings and deadlines can be tested.

Invariants: a signal goes to living ranks only, never to their data-loading workers. The ranks are told to
stop once per request, since a second time means "now". A deadline, once set, is only ever brought forward.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import Final, Literal

from trainerd.contract import exit_codes
from trainerd.contract.signals import is_second

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
class StopPolicy:
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


def after_signal(policy: StopPolicy, signum: int, now_s: float) -> tuple[StopPolicy, tuple[Command, ...]]:
    """Answer a request to stop (TERM, INT, USR1) or to end at once (QUIT)."""
    if signum == signal.SIGQUIT:
        return policy, _kill(policy, "asked")
    if policy.stop_requested_s is not None:
        if not is_second(policy.stop_requested_s, now_s, is_relayed=True):
            return policy, ()  # the same request: batch systems signal every process at the same moment
        return policy, _forward(policy, signum)  # the second one says "now"
    was_told = policy.are_told
    policy = _deadline(
        replace(policy, stop_requested_s=now_s, are_told=True), now_s + policy.grace_s, "grace"
    )
    return policy, () if was_told else _forward(policy, signum)


def after_rank_ended(
    policy: StopPolicy, rank: int, now_s: float, *, exit_code: int | None
) -> tuple[StopPolicy, tuple[Command, ...]]:
    """Answer the end of a rank. `exit_code` is None if a signal ended it or it never started."""
    policy = replace(policy, living=policy.living - {rank})
    if exit_code in GOOD_EXIT_CODES or not policy.living:
        return policy, ()
    was_told = policy.are_told
    limit_s = min(policy.grace_s, PEER_LIMIT_S)
    policy = _deadline(replace(policy, are_told=True), now_s + limit_s, "peer")
    return policy, () if was_told else _forward(policy, signal.SIGTERM)


def after_time(policy: StopPolicy, now_s: float) -> tuple[StopPolicy, tuple[Command, ...]]:
    """Answer the passing of time."""
    if policy.kill_at_s is None or now_s < policy.kill_at_s:
        return policy, ()
    return replace(policy, kill_at_s=None), _kill(policy, policy.kill_reason)


def _deadline(policy: StopPolicy, at_s: float, reason: KillReason) -> StopPolicy:
    if policy.kill_at_s is not None and policy.kill_at_s <= at_s:
        return policy
    return replace(policy, kill_at_s=at_s, kill_reason=reason)


def _forward(policy: StopPolicy, signum: int) -> tuple[Command, ...]:
    return (Forward(signum, policy.living),) if policy.living else ()


def _kill(policy: StopPolicy, reason: KillReason) -> tuple[Command, ...]:
    return (Kill(reason, policy.living),) if policy.living else ()
