"""A drain with a plan: what is done when, on a clock that is only a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainerd.supervisor.service.drain_plan import (
    EXTENSION_S,
    LEAVE_S,
    STILL_LIMIT_S,
    DrainWatch,
    Extend,
    Hurry,
    KillAll,
    Prospect,
    drain_plan,
    time_given_s,
    watch,
)

QUICK = Prospect("quick", grace_s=60.0, earlier_s=(2.0, 4.0))
NEW = Prospect("new", grace_s=30.0)


def run(plan, *, moves_until_s: float = 0.0, seen=None):
    """Return (moment, act) of all acts of a drain whose jobs never end, looked at once a second."""
    state, acts = DrainWatch(plan), []
    for now_s in range(int(plan.limit_s) + 60):
        state, now = watch(state, seen or (now_s if now_s <= moves_until_s else "still"), float(now_s))
        acts += [(now_s, act) for act in now]
    return acts


def moments(acts, kind):
    return [moment for moment, act in acts if isinstance(act, kind)]


def test_a_drain_is_predicted_from_the_longest_of_the_earlier_ones_with_a_margin():
    assert QUICK.predicted_s == 6.0
    assert drain_plan([QUICK], given_s=None, margin_s=30).predicted_s == 6.0


def test_a_job_that_was_never_drained_may_need_all_of_its_grace():
    assert NEW.predicted_s is None
    assert drain_plan([QUICK, NEW], given_s=None, margin_s=30).predicted_s == 30.0


def test_no_prediction_exceeds_the_grace_since_the_shim_ends_it_there():
    assert Prospect("slow", 10.0, (9.0,)).predicted_s == 10.0


def test_without_a_limit_the_graces_decide_and_nobody_is_hurried():
    plan = drain_plan([QUICK, NEW], given_s=None, margin_s=30)
    assert (plan.graces_end_s, plan.limit_s, plan.hurry_s, plan.kill_s) == (60.0, 90.0, None, None)
    assert not moments(run(plan), Hurry | KillAll)


def test_with_enough_time_a_limit_only_bounds_the_wait():
    plan = drain_plan([QUICK], given_s=70.0, margin_s=30)
    assert (plan.hurry_s, plan.limit_s) == (None, 70.0)


def test_with_too_little_time_the_ranks_are_hurried_while_a_save_still_fits():
    plan = drain_plan([QUICK], given_s=20.0, margin_s=30)
    assert plan.kill_s == 20.0 - LEAVE_S
    assert plan.hurry_s == plan.kill_s - 6.0
    acts = run(plan)
    assert moments(acts, Hurry) == [12]
    assert moments(acts, KillAll) == [18]


def test_half_of_the_time_is_kept_for_saves_of_which_nothing_is_known():
    plan = drain_plan([QUICK, NEW], given_s=22.0, margin_s=30)
    assert plan.hurry_s == 10.0


def test_a_job_that_will_probably_not_make_it_is_named_and_hurried_at_once():
    plan = drain_plan([Prospect("large", 300.0, (100.0,))], given_s=30.0, margin_s=30)
    assert plan.too_short_for == ("large",)
    assert plan.hurry_s == 0.0


def test_systemd_is_asked_for_time_a_little_at_a_time_until_the_graces_end():
    plan = drain_plan([NEW], given_s=None, margin_s=30)
    acts = run(plan, seen="plain commands show nothing")
    assert moments(acts, Extend) == [0, 5, 10, 15, 20, 25]
    assert {act.by_s for _, act in acts} == {EXTENSION_S}


def test_after_the_graces_it_is_asked_only_while_something_moves():
    plan = drain_plan([NEW], given_s=None, margin_s=1000)
    last = moments(run(plan, moves_until_s=100), Extend)[-1]
    assert 100 <= last <= 100 + STILL_LIMIT_S + 1


def test_it_is_never_asked_beyond_the_limit():
    plan = drain_plan([NEW], given_s=None, margin_s=30)
    assert moments(run(plan, moves_until_s=1000), Extend)[-1] < plan.limit_s


@pytest.mark.parametrize(
    ("limit_s", "slurm_end", "given_s"),
    [
        (None, "", None),
        (90.0, "", 90.0),
        (None, "1060", 60.0),
        (90.0, "1060", 60.0),
        (30.0, "1060", 30.0),
        (None, "900", 0.0),
        (None, "soon", None),
    ],
)
def test_the_time_given_is_the_least_that_anybody_says(limit_s, slurm_end, given_s):
    environ = {"SLURM_JOB_END_TIME": slurm_end}
    assert time_given_s(limit_s, environ, now_wall_s=1000.0) == given_s


def test_nobody_to_drain_takes_no_time():
    plan = drain_plan([], given_s=None, margin_s=0)
    assert plan.limit_s == 0.0


@given(
    st.lists(
        st.builds(
            Prospect,
            name=st.just("job"),
            grace_s=st.floats(0, 1000),
            earlier_s=st.lists(st.floats(0, 2000), max_size=3).map(tuple),
        ),
        max_size=4,
    ),
    st.none() | st.floats(0, 2000),
)
def test_hurry_comes_before_the_kill_and_the_kill_before_the_end(prospects, given_s):
    plan = drain_plan(prospects, given_s=given_s, margin_s=30)
    if plan.hurry_s is None:
        assert plan.kill_s is None
    else:
        assert 0 <= plan.hurry_s <= plan.kill_s <= plan.limit_s == pytest.approx(given_s)
    assert given_s is None or plan.limit_s <= given_s
