"""The wall clock steps by a day while there is no supervisor: no job waits for longer than it was to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.supervisor_objects import NOW, job
from trainerd.supervisor.loop import Loop
from trainerd.supervisor.machine.states import BackingOff, Paused

DAY_S = 86400.0


@pytest.mark.parametrize(
    "state", [BackingOff(40.0, NOW + 40.0), Paused(40.0, NOW + 40.0)], ids=["backoff", "paused"]
)
@pytest.mark.parametrize(
    ("step_s", "left_s"), [(-DAY_S, 40.0), (0.0, 30.0), (DAY_S, 0.0)], ids=["back", "none", "on"]
)
def test_a_wait_is_never_longer_than_it_was_to_be(state: Any, step_s: float, left_s: float) -> None:
    woken: list[float] = []
    loop = SimpleNamespace(
        _clock=SimpleNamespace(wall_s=lambda: NOW + 10.0 + step_s),
        _wake=lambda _name, _attempt, delay_s: woken.append(delay_s),
    )
    Loop._recover(loop, "ant", job(state, attempt=1))  # type: ignore[arg-type]
    assert woken == [left_s]
