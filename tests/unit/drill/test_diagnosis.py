"""Why two runs of a drill differ."""

from __future__ import annotations

import pytest

from trainerd.contract.rehearsal import BEFORE_STEP
from trainerd.contract.verdict import Reason
from trainerd.drill import diagnosis
from trainerd.drill.diagnosis import diagnose_fault, diagnose_undisturbed, first_differing_output
from trainerd.drill.run_comparison import RunDifference

SAMPLES = RunDifference("samples", 4, "", "it used other samples")
VALUE = RunDifference("value", 4, "", "loss 1 became 2")
STATE = RunDifference("state", 4, "optimizer.state", "it differs")
CARRIED = Reason("carried-variable", "train.py:12", "total is carried")
UNTRACKED = Reason("untracked-scheduler", "StepLR", "it is not tracked", "track it")
GENERATOR = Reason("untracked-generator", "train.py:3", "rng begins again")
AFTER = Reason("read-after-loop", "train.py:20", "x is read after the loop")


def kinds(*arguments, **options):
    return [each.kind for each in diagnose_fault(*arguments, **options)]


@pytest.mark.parametrize(
    ("difference", "reason", "kind"),
    [
        (SAMPLES, GENERATOR, diagnosis.GENERATOR),
        (VALUE, UNTRACKED, diagnosis.STATE),
        (VALUE, CARRIED, diagnosis.CARRIED),
        (STATE, AFTER, diagnosis.AFTER_LOOP),
        (SAMPLES, Reason("sampler-not-seeded", "sampler", "x"), diagnosis.DATA),
    ],
    ids=["samples-generator", "value-untracked", "value-carried", "state-after-loop", "samples-sampler"],
)
def test_what_the_session_suspected_is_named_with_its_place(difference, reason, kind):
    (found,) = diagnose_fault("drain", [difference], [reason])
    assert (found.kind, found.where) == (kind, reason.where)


def test_a_suspicion_that_does_not_explain_the_difference_is_not_named():
    assert kinds("drain", [SAMPLES], [UNTRACKED]) == [diagnosis.DATA]


def test_the_likelier_of_two_suspicions_comes_first():
    assert kinds("drain", [SAMPLES], [CARRIED, GENERATOR]) == [diagnosis.GENERATOR, diagnosis.CARRIED]


def test_what_merely_says_that_something_differs_is_no_cause():
    noise = [Reason("different-value", "step 4", "loss"), Reason("no-witness", "", "none")]
    assert kinds("drain", [SAMPLES], noise) == [diagnosis.DATA]


@pytest.mark.parametrize(
    ("difference", "kind"),
    [
        (SAMPLES, diagnosis.DATA),
        (RunDifference("rows", 4, "", "x"), diagnosis.ENDING),
        (RunDifference("report", 4, "score a", "x"), diagnosis.AFTER_LOOP),
        (RunDifference("state", 4, "rng.torch", "x"), diagnosis.GENERATOR),
        (RunDifference("state", 4, "values.best", "x"), diagnosis.CARRIED),
        (STATE, diagnosis.STATE),
    ],
    ids=["samples", "rows", "report", "rng", "values", "object"],
)
def test_without_a_suspicion_the_difference_says_where_to_look(difference, kind):
    assert kinds("drain", [difference], []) == [kind]


def test_another_number_of_ranks_and_of_workers_are_causes_themselves():
    assert kinds("ranks", [VALUE], []) == [diagnosis.WORLD_SIZE]
    assert kinds("workers", [SAMPLES], [])[0] == diagnosis.WORKERS


def test_no_difference_has_no_cause():
    assert diagnose_fault("drain", [], [CARRIED]) == ()


def undisturbed(difference, module=None, kernels=()):
    return diagnose_undisturbed([difference], first_module=module, kernels=kernels, is_deterministic=False)


def test_the_first_module_that_differs_and_the_kernels_are_named():
    found = undisturbed(VALUE, "model.attention", ("index_add_cuda_",))
    assert [each.where for each in found] == ["model.attention", "index_add_cuda_"]
    assert {each.kind for each in found} == {diagnosis.NONDETERMINISTIC}


def test_weights_that_differ_before_the_first_step_are_told_from_a_kernel():
    (found,) = undisturbed(RunDifference("value", 1, "", "x"), f"model{BEFORE_STEP}")
    assert found.where == "model"
    assert "begins the first step with other values" in found.detail
    assert "manual_seed" in found.hint


def test_two_undisturbed_runs_with_other_samples_have_an_unseeded_order():
    assert undisturbed(SAMPLES)[0].kind == diagnosis.DATA


def test_the_first_output_that_differs():
    then = [("a", "1"), ("b", "2"), ("c", "3")]
    assert first_differing_output(then, then) is None
    assert first_differing_output(then, [("a", "1"), ("b", "x"), ("c", "y")]) == "b"
