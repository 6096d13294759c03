"""What the machine wants done, once its decision is durable.

Every command can be told again from the state alone, so a supervisor that died between the decision and the
action loses nothing: recovery looks at the state and at what is there, and asks for what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LaunchAttempt:
    """Write what to start and start the shim."""

    attempt: int


@dataclass(frozen=True)
class ObserveAttempt:
    """Look at the attempt, and go on looking until it has ended."""

    attempt: int


@dataclass(frozen=True)
class DrainAttempt:
    """Ask the attempt's ranks, through its shim, to checkpoint and leave."""

    attempt: int


@dataclass(frozen=True)
class EndStalledAttempt:
    """Write where the attempt's ranks stand to their logs, then end them."""

    attempt: int


@dataclass(frozen=True)
class WakeLater:
    """Say `WaitEnded` after so many seconds."""

    attempt: int
    delay_s: float


Command = LaunchAttempt | ObserveAttempt | DrainAttempt | EndStalledAttempt | WakeLater
