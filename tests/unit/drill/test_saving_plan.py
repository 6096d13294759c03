"""Faults and horizon of a script with Checkpointers alone, and what an attempt of it lost."""

from __future__ import annotations

import pytest

from trainerd.contract.rehearsal import Strike
from trainerd.contract.save_journal import SaveEvent
from trainerd.drill.diagnosis import diagnose_saving
from trainerd.drill.run_comparison import RunDifference
from trainerd.drill.saving_plan import (
    choose_saving_faults,
    choose_saving_horizon,
    saves_of,
    steps_lost,
)


def saves(count, *, gap=6, folder="a"):
    return [
        SaveEvent("save", 1, step=each, updates=gap * each, monotonic_s=10.0 + each, folder=folder)
        for each in range(1, count + 1)
    ]


def horizon(count, *, is_whole, budget_s=300.0, start_s=2.0, steps=None):
    return choose_saving_horizon(
        saves(count), start_s=start_s, interval_s=1.0, is_whole=is_whole, budget_s=budget_s, steps=steps
    )


def test_a_short_job_runs_to_its_end_and_a_long_one_to_a_save_that_fits():
    assert horizon(4, is_whole=True).stop_step is None
    assert horizon(20, is_whole=True).stop_step == 6
    assert horizon(3, is_whole=False).stop_step == 6
    assert horizon(3, is_whole=False, budget_s=60.0, start_s=3.0).stop_step == 3
    assert horizon(3, is_whole=False, budget_s=20.0).lacks_budget
    assert horizon(4, is_whole=True, steps=2).stop_step == 2
    assert horizon(4, is_whole=True, steps=9).stop_step is None


def test_the_faults_strike_between_the_first_two_saves():
    plan = choose_saving_faults(saves(4), ranks=2)
    assert {each.name: each.strikes for each in plan.faults} == {
        "drain": (Strike("drain", "save", 1, 3),),
        "kill": (Strike("kill", "save", 1, 3),),
        "epoch-end": (Strike("drain", "save", 1),),
        "twice": (Strike("kill", "save", 1, 3), Strike("drain", "save", 1, 4)),
        "ranks": (Strike("drain", "save", 1, 3),),
    }
    assert {each.name for each in plan.left_out} == {"evaluation", "after-loop", "workers"}


def test_of_a_single_save_what_comes_before_it_is_struck():
    plan = choose_saving_faults(saves(1), only=("kill", "epoch-end"))
    assert [each.strikes for each in plan.faults] == [(Strike("kill", "save", 0, 3),)]
    assert [each.name for each in plan.left_out] == ["epoch-end"]


def test_where_no_optimizer_steps_between_saves_nothing_is_struck_there():
    plan = choose_saving_faults(saves(3, gap=1))
    assert [each.name for each in plan.faults] == ["epoch-end"]
    assert "1 step between two saves" in plan.left_out[0].why


def test_the_checkpointer_that_saves_most_often_counts():
    assert len(saves_of([*saves(2, folder="best"), *saves(5, folder="last")])) == 5


@pytest.mark.parametrize(
    ("after", "lost"),
    [
        ([], 9),
        ([SaveEvent("resume", 2, step=1)], 3),
        ([SaveEvent("save", 1, step=7, updates=9), SaveEvent("resume", 2, step=7)], 0),
    ],
    ids=["nothing-to-resume", "from-the-save-before", "its-handler-saved"],
)
def test_steps_that_are_made_again(after, lost):
    events = [*saves(1), SaveEvent("strike", 1, step=1, updates=9), *after]
    assert steps_lost(events, 1) == lost


def test_an_attempt_that_was_not_struck_has_an_unknown_loss():
    assert steps_lost(saves(2), 1) is None


@pytest.mark.parametrize(
    ("difference", "kind"),
    [
        (RunDifference("state", 12, "model.weight", "1 became 2"), "generator"),
        (RunDifference("end", None, "", "ended elsewhere"), "end of the loop"),
        (RunDifference("report", 12, "score total", "1 became 2"), "variable carried between batches"),
    ],
    ids=["state", "end", "score"],
)
def test_what_differs_says_what_a_checkpointer_leaves_out(difference, kind):
    assert diagnose_saving("kill", [difference])[0].kind == kind
    assert diagnose_saving("kill", []) == ()


def test_another_number_of_ranks_that_takes_other_samples_is_told_from_one_that_adds_otherwise():
    samples, state = RunDifference("samples", 5, "", "other"), RunDifference("state", 5, "m", "other")
    assert "batch_size // world_size" in diagnose_saving("ranks", [samples])[0].hint
    assert "last bits" in diagnose_saving("ranks", [state])[0].detail
