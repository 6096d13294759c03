"""Signals with a meaning of their own between the two halves."""

from __future__ import annotations

import signal
from typing import Final

STACKS: Final = signal.SIGUSR2
"""Write the stacks of all threads to the rank's log. Sent only to a process that has a handler for it."""
