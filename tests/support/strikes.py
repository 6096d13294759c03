"""Strikes of a test's job by its own hand, at a place that ``JOB_STRIKE`` names: ``PLACE:SIGNAL[@RANK]``."""

from __future__ import annotations

import os
import signal
import time

_WAIT_S = 0.05


def strike(place: str) -> None:
    """Die here, or be asked to stop, if that is what this attempt is for. Without a rank: on each of them."""
    where, _, what = os.environ["JOB_STRIKE"].partition(":")
    name, _, rank = what.partition("@")
    if where == place and rank in {"", os.environ.get("RANK", "0")}:
        os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
        time.sleep(_WAIT_S)
