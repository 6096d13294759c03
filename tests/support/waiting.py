"""Waiting, within a limit, for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LOOK_S = 0.02

Found = TypeVar("Found")


def wait_for(
    condition: Callable[[], Found],
    what: str,
    *,
    limit_s: float,
    look_s: float = LOOK_S,
    story: Callable[[], str] = str,
) -> Found:
    """Return what `condition` returns once it is true.

    Args:
        condition: Looks once; it may fail where what is waited for can no longer come.
        what: What is waited for, for the message of a failure.
        limit_s: How long it may take.
        look_s: Time between two looks.
        story: Returns what a failure shows besides, such as the end of a log.
    """
    deadline_s = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"waited {limit_s:g} s for {what}\n{story()}"
        time.sleep(look_s)
    return found
