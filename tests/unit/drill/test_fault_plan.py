"""Which faults a drill rehearses, and for how many steps."""

from __future__ import annotations

import pytest

from trainerd.drill.fault_plan import Horizon, Measured, Undisturbed, choose_faults, choose_horizon

WHOLE = Horizon(None, 5, "all")


def by_name(plan):
    return {each.name: each for each in plan.faults}


def test_a_short_job_runs_to_its_end():
    found = choose_horizon(Measured(2.0, 0.01, 30, 10, 30), 300.0)
    assert (found.stop_step, found.every_steps) == (None, 5)


def test_a_long_job_is_stopped_a_little_after_its_first_epoch():
    found = choose_horizon(Measured(2.0, 0.01, 100, 200, 100_000), 600.0)
    assert found.stop_step == 250


def test_an_epoch_that_does_not_fit_is_cut_and_the_reason_is_said():
    found = choose_horizon(Measured(2.0, 1.0, 5, 10_000, 100_000), 300.0)
    assert found.stop_step is not None
    assert 4 <= found.stop_step < 30
    assert "an epoch has 10000" in found.why


def test_the_runs_that_are_planned_fit_into_the_budget():
    measured = Measured(2.0, 0.5, 5, 10_000)
    found = choose_horizon(measured, 600.0)
    assert found.stop_step is not None
    assert 17 * 2.0 + 9 * 0.5 * found.stop_step <= 600.0


def test_where_starts_cost_the_whole_budget_steps_that_cost_as_much_as_a_start_are_made():
    found = choose_horizon(Measured(10.0, 0.01, 5, 300, 600), 60.0)
    assert found.stop_step is None
    assert choose_horizon(Measured(10.0, 0.01, 5, 300, 6000), 60.0).stop_step == 350


def test_the_number_of_steps_that_is_asked_for_is_taken():
    assert choose_horizon(Measured(1.0, 1.0, 5, 10, 1000), 60.0, steps=40).stop_step == 40
    assert choose_horizon(Measured(1.0, 1.0, 5, 10, 30), 60.0, steps=40).stop_step is None


def test_all_faults_of_a_job_with_epochs_and_evaluation():
    plan = choose_faults(Undisturbed(30, 10, 3, evaluates=True), WHOLE)
    assert list(by_name(plan)) == [
        "drain",
        "kill",
        "after-loop",
        "evaluation",
        "epoch-end",
        "twice",
        "workers",
    ]
    assert plan.left_out == ()


def test_a_kill_is_planned_between_two_checkpoints_so_that_steps_are_lost():
    (strike,) = by_name(choose_faults(Undisturbed(60, 60, 1), Horizon(None, 10, "all")))["kill"].strikes
    assert strike.action == "kill"
    assert strike.step % 10 != 0
    assert strike.step > 10


def test_two_faults_in_an_epoch_lie_within_it_one_after_the_other():
    first, second = by_name(choose_faults(Undisturbed(30, 10, 3), WHOLE))["twice"].strikes
    assert (first.action, second.action) == ("kill", "drain")
    assert 1 <= first.step < second.step < 10


@pytest.mark.parametrize("steps", range(2, 40))
def test_every_strike_lies_before_the_end_of_the_run(steps):
    plan = choose_faults(Undisturbed(steps, steps, 1), Horizon(None, max(1, steps // 6), "all"))
    for fault in plan.faults:
        for strike in fault.strikes:
            assert 1 <= strike.step < steps, fault


def test_what_the_run_does_not_reach_is_left_out_with_the_reason():
    plan = choose_faults(Undisturbed(20, None, 0, is_whole=False), Horizon(20, 3, "cut"))
    why = {each.name: each.why for each in plan.left_out}
    assert "no epoch ended within 20 steps" in why["epoch-end"]
    assert "no epoch ended" in why["after-loop"]
    assert "train=False" in why["evaluation"]


def test_the_end_of_the_only_epoch_is_no_place_for_a_drain():
    plan = choose_faults(Undisturbed(10, 10, 1), WHOLE)
    assert "single epoch" in {each.name: each.why for each in plan.left_out}["epoch-end"]


def test_another_number_of_ranks_is_rehearsed_only_if_it_is_asked_for():
    assert "ranks" not in by_name(choose_faults(Undisturbed(10, 10, 1), WHOLE))
    assert by_name(choose_faults(Undisturbed(10, 10, 1), WHOLE, ranks=2))["ranks"].ranks == 2


def test_only_the_faults_that_are_asked_for():
    plan = choose_faults(Undisturbed(10, None, 0), WHOLE, only=("kill", "epoch-end"))
    assert [each.name for each in plan.faults] == ["kill"]
    assert [each.name for each in plan.left_out] == ["epoch-end"]


@pytest.mark.parametrize(
    ("measured", "lacks"),
    [
        (Measured(2.0, 1.0, 5, 10_000, 100_000), True),
        (Measured(2.0, 0.001, 5, 100, 100_000), False),
        (Measured(2.0, 0.001, 5, None, None), False),
        (Measured(2.0, 10.0, 5, None, None), False),
    ],
    ids=["epoch-does-not-fit", "epoch-fits", "no-epochs", "no-epochs-slow"],
)
def test_what_a_larger_budget_would_show_is_told_from_what_is_not_there(measured, lacks):
    horizon = choose_horizon(measured, 300.0)
    plan = choose_faults(Undisturbed(4, None, 0, is_whole=False), horizon)
    unfit = [each.name for each in plan.left_out if each.lacks_budget]
    assert unfit == (["after-loop", "epoch-end"] if lacks else [])
    assert all(("larger --budget" in each.why) == each.lacks_budget for each in plan.left_out)


def test_with_several_ranks_the_end_of_a_grace_period_is_not_called_rehearsed():
    plan = choose_faults(Undisturbed(30, 10, 3, evaluates=True), WHOLE, nproc=2)
    assert "after-loop" not in by_name(plan)
    assert [(each.name, each.lacks_budget) for each in plan.left_out] == [("after-loop", False)]
