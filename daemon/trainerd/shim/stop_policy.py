"""What the shim does next: pure, so that every order of signals, endings and deadlines can be tested.

Invariants: a signal goes to living ranks only, never to their data-loading workers. The ranks are told to
stop once per request, since a second time means "now". A deadline, once set, is only ever brought forward.
The command of a rank is told only if no session trains below it, or once those sessions have ended.
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

COMMAND_SETTLE_S: Final = 1.0
"""How long the command of a rank may go on once its sessions have ended, in seconds. Most end by
themselves."""

GOOD_EXIT_CODES: Final = frozenset({exit_codes.FINISHED, exit_codes.DRAINED})
"""Exit codes after which the other ranks may go on: they do not all finish at the same moment."""


@dataclass(frozen=True)
class Forward:
    """Send a signal to ranks: to the sessions below a rank's command, or to the command if it has none."""

    signum: int
    ranks: frozenset[int]


@dataclass(frozen=True)
class Kill:
    """End ranks by SIGKILL, for a reason that the exit record will name."""

    reason: KillReason
    ranks: frozenset[int]


@dataclass(frozen=True)
class EndCommand:
    """Ask the commands of ranks, whose sessions have ended, to end as well."""

    ranks: frozenset[int]


Command = Forward | Kill | EndCommand


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
        trained_in: Ranks that had a living session at the last look, once told.
        idle_since_s: Since when each rank that was told has no session left, by rank.
    """

    grace_s: float
    living: frozenset[int]
    stop_requested_s: float | None = None
    are_told: bool = False
    kill_at_s: float | None = None
    kill_reason: KillReason = "grace"
    trained_in: frozenset[int] = frozenset()
    idle_since_s: tuple[tuple[int, float], ...] = ()

    @property
    def next_moment_s(self) -> float | None:
        """When `after_time` has something to do, None if never."""
        moments = [since_s + COMMAND_SETTLE_S for _, since_s in self.idle_since_s]
        moments += [] if self.kill_at_s is None else [self.kill_at_s]
        return min(moments, default=None)


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


def after_command_ended(
    policy: StopPolicy, now_s: float, *, exit_code: int | None
) -> tuple[StopPolicy, tuple[Command, ...]]:
    """Answer the end of a rank's command below which a session still trains.

    A command that ended well has put it into the background, and it goes on. After a bad end it is asked to
    save and leave, and so are its peers.
    """
    if policy.are_told or exit_code in GOOD_EXIT_CODES:
        return policy, ()
    policy = _deadline(replace(policy, are_told=True), now_s + policy.grace_s, "grace")
    return policy, _forward(policy, signal.SIGTERM)


def after_sessions(
    policy: StopPolicy, trained_in: frozenset[int], now_s: float
) -> tuple[StopPolicy, tuple[Command, ...]]:
    """Answer a look at which ranks have a session that lives. It counts once the ranks are told."""
    if not policy.are_told:
        return policy, ()
    idle = {rank: since_s for rank, since_s in policy.idle_since_s if rank not in trained_in}
    idle |= dict.fromkeys(policy.trained_in - trained_in, now_s)
    idle_since_s = tuple(sorted((rank, since_s) for rank, since_s in idle.items() if rank in policy.living))
    return replace(policy, trained_in=trained_in, idle_since_s=idle_since_s), ()


def after_time(policy: StopPolicy, now_s: float) -> tuple[StopPolicy, tuple[Command, ...]]:
    """Answer the passing of time."""
    commands: tuple[Command, ...] = ()
    settled = [rank for rank, since_s in policy.idle_since_s if now_s >= since_s + COMMAND_SETTLE_S]
    if ending := policy.living.intersection(settled):
        commands = (EndCommand(ending),)
    if settled:
        left = tuple(each for each in policy.idle_since_s if each[0] not in settled)
        policy = replace(policy, idle_since_s=left)
    if policy.kill_at_s is None or now_s < policy.kill_at_s:
        return policy, commands
    return replace(policy, kill_at_s=None), commands + _kill(policy, policy.kill_reason)


def _deadline(policy: StopPolicy, at_s: float, reason: KillReason) -> StopPolicy:
    if policy.kill_at_s is not None and policy.kill_at_s <= at_s:
        return policy
    return replace(policy, kill_at_s=at_s, kill_reason=reason)


def _forward(policy: StopPolicy, signum: int) -> tuple[Command, ...]:
    return (Forward(signum, policy.living),) if policy.living else ()


def _kill(policy: StopPolicy, reason: KillReason) -> tuple[Command, ...]:
    return (Kill(reason, policy.living),) if policy.living else ()
