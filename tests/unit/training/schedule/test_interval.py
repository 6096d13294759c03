"""The planned interval: Daly's numbers, bounded, and moved by what was seen."""

import math

import pytest

from trainerd.training.schedule.interval import (
    INTERVAL_S_MAX,
    INTERVAL_S_MIN,
    PRIOR_FAILURE_S,
    daly_interval_s,
    planned_interval,
)


def expected_loss(interval_s, cost_s, failure_every_s):
    """The share of time that is lost, by Daly's model with Poisson failures and no restart time."""
    return failure_every_s * math.expm1((interval_s + cost_s) / failure_every_s) / interval_s


@pytest.mark.parametrize("cost_s", [0.01, 1.0, 60.0, 600.0])
@pytest.mark.parametrize("failure_every_s", [600.0, 3600.0, 86400.0])
def test_no_other_interval_loses_noticeably_less(cost_s, failure_every_s):
    best = daly_interval_s(cost_s, failure_every_s)
    loss = expected_loss(best, cost_s, failure_every_s)
    others = [
        expected_loss(best * factor, cost_s, failure_every_s) for factor in (0.25, 0.5, 0.8, 1.25, 2, 4)
    ]
    assert loss <= min(others) * 1.02


def test_a_cheap_save_is_youngs_square_root():
    assert daly_interval_s(0.01, 3600.0) == pytest.approx(math.sqrt(2 * 0.01 * 3600.0), rel=0.01)


def test_a_save_that_costs_more_than_the_time_between_failures_is_made_once_in_it():
    assert daly_interval_s(100.0, 40.0) == 40.0


def test_the_interval_is_bounded():
    assert planned_interval(save_cost_s=1e-9, failures=50, trained_s=60.0).interval_s == INTERVAL_S_MIN
    assert planned_interval(save_cost_s=900.0, failures=0, trained_s=1e9).interval_s == INTERVAL_S_MAX


def test_failures_shorten_it_and_quiet_hours_lengthen_it():
    quiet = planned_interval(save_cost_s=0.5, failures=0, trained_s=40 * 3600.0).interval_s
    start = planned_interval(save_cost_s=0.5, failures=0, trained_s=0.0).interval_s
    rough = planned_interval(save_cost_s=0.5, failures=20, trained_s=3600.0).interval_s
    assert rough < start < quiet


def test_the_plan_says_what_it_follows_from():
    plan = planned_interval(save_cost_s=0.5, failures=0, trained_s=0.0)
    assert str(plan) == (
        f"a checkpoint every {plan.interval_s:.0f} s: a save costs 500.0 ms, and a failure comes about every "
        f"{PRIOR_FAILURE_S / 60:.0f} min"
    )
