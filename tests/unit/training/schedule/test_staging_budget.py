"""How often a boundary may be copied aside for a drain without one."""

from __future__ import annotations

import pytest

from trainerd.training.schedule import staging_budget
from trainerd.training.schedule.staging_budget import StagingBudget


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(staging_budget, "time", clock)
    return clock


@pytest.mark.parametrize(("is_alone", "first_s"), [(True, 0.5), (False, 2.5)])
def test_the_first_copy_may_take_one_percent_of_the_time_since_the_beginning(clock, is_alone, first_s):
    budget = StagingBudget(is_alone=is_alone)
    clock.now_s += first_s - 0.01
    assert not budget.is_enough()
    clock.now_s += 0.02
    assert budget.is_enough()


def test_a_copy_that_took_longer_makes_the_next_one_wait_longer(clock):
    budget = StagingBudget(is_alone=True)
    with budget.measured():
        clock.now_s += 0.105  # 0.005 was expected: the mean of both is 0.055
    clock.now_s += 5.49
    assert not budget.is_enough()
    clock.now_s += 0.02
    assert budget.is_enough()
