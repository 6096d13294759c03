"""Two runs are equal only if weights, the rest of the state and the history all are."""

from __future__ import annotations

import dataclasses

import pytest

from chaos.demo.verdict import Result, Verdict
from trainerd.contract.metric_history import History

ROWS = ({"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25})
REPORTS = ({"report": True, "step": 2, "accuracy": 0.9},)
RESULT = Result("step-000000002", "xxh3-128:aa", "xxh3-128:bb", History(ROWS, REPORTS))


def test_equal_results_are_equal_though_steps_were_run_twice() -> None:
    disturbed = dataclasses.replace(RESULT, history=History(ROWS, REPORTS, superseded=(ROWS[1], REPORTS[0])))
    verdict = Verdict(disturbed, RESULT)
    assert verdict.all_is_equal
    assert disturbed.steps_run_twice == 1


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(RESULT, weights_digest="xxh3-128:00"),
        dataclasses.replace(RESULT, tree_digest="xxh3-128:00"),
        dataclasses.replace(RESULT, history=History(ROWS[:1], REPORTS)),
        dataclasses.replace(RESULT, history=History(ROWS, ())),
        dataclasses.replace(RESULT, history=History((ROWS[0], {"step": 2, "loss": 0.2500000001}), REPORTS)),
    ],
)
def test_any_difference_is_a_difference(other: Result) -> None:
    assert not Verdict(other, RESULT).all_is_equal


def test_two_empty_histories_prove_nothing() -> None:
    empty = dataclasses.replace(RESULT, history=History())
    assert not Verdict(empty, empty).all_is_equal
