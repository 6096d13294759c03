"""The first difference between two runs."""

from __future__ import annotations

import math

from trainerd.drill.run_comparison import RunTrace, compare_runs, differing_names
from trainerd.training.engine.row_comparison import Patterns

BOUNDARIES = ((2, 0, 2, False), (4, 1, 0, True))


def row(step, loss=0.5, digest="d", **others):
    return {"step": step, "epoch": 0, "batch": step - 1, "digest": f"{digest}{step}", "loss": loss, **others}


def trace(*rows, reports=(), boundaries=BOUNDARIES):
    return RunTrace(rows or tuple(map(row, range(1, 5))), reports, boundaries)


def same(_boundary):
    return None


def test_equal_runs_are_exact_and_what_was_compared_is_counted():
    found = compare_runs(trace(), trace(), same)
    assert found.is_exact
    assert (found.rows, found.values, found.samples, found.states) == (4, 4, 4, 2)


def test_runs_of_which_no_state_was_compared_are_not_exact():
    assert not compare_runs(trace(boundaries=()), trace(boundaries=()), same).is_exact


def test_the_first_step_whose_samples_differ():
    other = trace(row(1), row(2), row(3, digest="x"), row(4, digest="x"))
    (found,) = compare_runs(trace(), other, same).differences
    assert (found.kind, found.step) == ("samples", 3)


def test_the_first_value_that_differs_by_one_bit():
    other = trace(row(1), row(2, math.nextafter(0.5, 1)), row(3), row(4))
    (found,) = compare_runs(trace(), other, same).differences
    assert (found.kind, found.step) == ("value", 2)
    assert "loss 0.5 became 0.5000000000000001" in found.detail


def test_a_value_that_is_not_compared():
    then = trace(row(1, speed=1.0), boundaries=BOUNDARIES)
    now = trace(row(1, speed=2.0), boundaries=BOUNDARIES)
    assert not compare_runs(then, now, same).is_exact
    assert compare_runs(then, now, same, uncompared=Patterns(("speed",))).is_exact
    assert differing_names(then, now) == ("speed",)


def test_the_first_state_that_differs_is_named_by_its_path():
    found = compare_runs(trace(), trace(), lambda each: ("model.w", "1 became 2") if each[0] == 4 else None)
    assert [(each.kind, each.step, each.where) for each in found.differences] == [("state", 4, "model.w")]


def test_the_earliest_difference_comes_first_whatever_its_kind():
    other = trace(row(1), row(2), row(3), row(4, 0.75))
    found = compare_runs(trace(), other, lambda each: ("model.w", "x") if each[0] == 2 else None)
    assert [each.kind for each in found.differences] == ["state", "value"]


def test_a_run_of_fewer_steps_is_different():
    other = trace(row(1), row(2), boundaries=BOUNDARIES[:1])
    kinds = [each.kind for each in compare_runs(trace(), other, same).differences]
    assert kinds == ["rows", "end"]


def test_a_step_of_another_epoch_is_different():
    other = trace(row(1), {**row(2), "epoch": 1}, row(3), row(4))
    (found,) = compare_runs(trace(), other, same).differences
    assert (found.kind, found.step) == ("rows", 2)


def test_reports_are_compared_one_by_one():
    then = trace(reports=({"report": True, "step": 4, "epoch": 0, "accuracy": 0.5},))
    other = trace(reports=({"report": True, "step": 4, "epoch": 0, "accuracy": 0.25},))
    (found,) = compare_runs(then, other, same).differences
    assert (found.kind, found.where) == ("report", "score accuracy")
    twice = trace(reports=then.reports * 2)
    assert "2 reports instead of 1" in compare_runs(then, twice, same).differences[0].detail


def test_a_common_boundary_alone_is_compared_and_the_last_one_must_be_common():
    other = trace(boundaries=((1, 0, 1, False), (2, 0, 2, False)))
    found = compare_runs(trace(), other, same)
    assert found.states == 1
    assert [each.kind for each in found.differences] == ["end"]
