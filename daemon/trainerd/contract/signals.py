"""Signals with a meaning of their own between the two halves."""

from __future__ import annotations

import signal
from typing import Final

STOP: Final = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU}
)
"""Signals that ask for a drain. Batch systems send SIGUSR1 (Slurm), SIGUSR2 (submitit) or SIGXCPU some time
before a limit; SIGHUP is a lost terminal."""

SIGNALS_HELD: Final = "TRAINERD_SIGNALS_HELD"
"""Environment variable: `STOP` is held since the rank began, and `import trainerd` takes the signals over."""

SHELL_SIGNAL: Final = 128
"""A shell whose command died of a signal exits with the signal's number and this."""

URGENT: Final = frozenset({signal.SIGTERM, signal.SIGINT})
"""Those of which a second one means "now"."""

SECOND_AFTER_S: Final = 2.0
"""How long after the first request a signal counts as a second one, in seconds. Batch systems signal every
process at the same moment, and those that forward the signal do it once more."""

RELAY_S: Final = 0.05
"""How much later a first request may reach a process to which another process relays it, in seconds: what
is a second request there is one here too."""

STACKS: Final = int(signal.SIGRTMAX) - 4
"""Write the stacks of all threads to the rank's log. Sent only to a process that has a handler for it. A
real-time signal: no batch system, launcher or runtime of another language sends this one."""


def signal_name(number: int) -> str:
    """Return the name of a signal; a real-time signal has none but its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def is_second(first_s: float, now_s: float, *, is_relayed: bool = False) -> bool:
    """Tell whether a signal is a second request, which means "now".

    Args:
        first_s: When the first one came, in seconds.
        now_s: When it came.
        is_relayed: Whether another process may pass on what it has found to be a second request.
    """
    return now_s - first_s >= SECOND_AFTER_S - (RELAY_S if is_relayed else 0.0)
