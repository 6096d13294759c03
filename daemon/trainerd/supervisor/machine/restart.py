"""Whether and when to try again: pure.

The budget counts attempts *in a row without progress*, and progress is a step beyond the best one ever
reached. So a job that keeps moving may crash for ever, and one that does not is parked, whatever the exit
codes with which it fails to move.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trainerd.contract.policy import RestartPolicy

_JITTER: Final = 0.2
"""Largest part of a delay by which it is shortened, so that jobs that died together do not return
together."""


def failures_after(failures: int, *, has_progressed: bool) -> int:
    """Return the attempts in a row without progress, after one more attempt."""
    return 0 if has_progressed else failures + 1


def is_spent(failures: int, policy: RestartPolicy) -> bool:
    """Return whether the budget is used up. A job that has just progressed has a full one."""
    return failures > 0 and failures >= policy.budget


def next_delay_s(failures: int, policy: RestartPolicy, *, seed: str) -> float:
    """Return how long to wait before the next attempt, in seconds.

    Exponential backoff: the initial delay doubles with every attempt without progress, up to the longest one,
    less a random part of at most a fifth.

    Args:
        failures: Attempts in a row without progress; 0 waits as long as 1.
        policy: Initial and longest delay.
        seed: Makes the jitter repeatable, so that a simulation replays.
    """
    exponent = min(max(failures - 1, 0), 64)  # a double can hold no more doublings worth having
    delay_s = min(policy.initial_s * 2.0**exponent, policy.max_s)
    return delay_s * (1.0 - _JITTER * random.Random(seed).random())  # noqa: S311 - jitter is no secret
