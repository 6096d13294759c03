"""How long an attempt of a drill may take, and when no further fault is begun."""

import time

import pytest

from trainerd.drill.drill_budget import (
    ATTEMPT_LIMIT_S_MIN,
    OVERRUN,
    LongestRun,
    attempt_limit_s,
    unless_used_up,
)
from trainerd.drill.fault_plan import PlannedFault

FAULT = PlannedFault("kill", "SIGKILL", ())


def test_a_fault_is_not_begun_once_the_budget_is_used_up_and_the_result_says_so(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    spent_s = OVERRUN * 60.0
    assert unless_used_up(FAULT, began_s=1001.0 - spent_s, budget_s=60.0) is None
    found = unless_used_up(FAULT, began_s=999.0 - spent_s, budget_s=60.0)
    assert (found.name, found.title, found.verdict, found.lacks_budget) == (
        "kill",
        "SIGKILL",
        "not-run",
        True,
    )
    assert found.message == "the budget of 60 s is used up: give a larger --budget"


def test_a_fault_is_not_begun_that_would_end_too_late(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    budget = {"began_s": 950.0, "budget_s": 60.0}
    assert unless_used_up(FAULT, **budget, expected_s=OVERRUN * 60.0 - 50.0) is None
    found = unless_used_up(FAULT, **budget, expected_s=OVERRUN * 60.0 - 49.0)
    assert found.message == "the budget of 60 s leaves no time for it (about 23 s): give a larger --budget"


def test_the_longest_of_the_runs_so_far_is_what_the_next_one_may_take(monkeypatch):
    clock = iter([10.0, 14.0, 20.0, 27.0, 30.0, 31.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    longest = LongestRun()
    for seconds in (4.0, 7.0, 7.0):
        with longest.timed():
            pass
        assert longest.seconds == seconds


@pytest.mark.parametrize(("expected_s", "limit_s"), [(1.0, ATTEMPT_LIMIT_S_MIN), (100.0, 500.0)])
def test_an_attempt_may_take_several_times_what_is_expected(expected_s, limit_s):
    assert attempt_limit_s(expected_s) == limit_s
