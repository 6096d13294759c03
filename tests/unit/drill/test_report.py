"""How a drill is shown, and when it is called exact."""

from __future__ import annotations

import dataclasses
import json

import pytest

from trainerd.drill.diagnosis import DrillCause
from trainerd.drill.drill_report import DrillReport, FaultResult, encode_report, overall
from trainerd.drill.report_html import page
from trainerd.drill.report_text import closing_line, explanations, table_rows
from trainerd.drill.run_comparison import Compared, RunDifference

CLEAN = FaultResult("undisturbed", "undisturbed, a second time", "exact", compared=Compared(30, 30, 30, 6))
UNEQUAL = dataclasses.replace(CLEAN, verdict="different")
DRAIN = FaultResult("drain", "drain", "exact", 0, 2.5, Compared(30, 30, 30, 6))
LEFT_OUT = FaultResult("epoch-end", "epoch's end", "not-run", message="no epoch ended")
DIFFERENT = FaultResult(
    "kill",
    "SIGKILL",
    "different",
    2,
    3.0,
    Compared(
        30,
        30,
        30,
        6,
        (
            RunDifference("value", 7, "", "loss 1 became 2"),
            RunDifference("state", 10, "model.w", "[0]: 1 became 2"),
        ),
    ),
    (DrillCause("variable carried between batches", "train.py:12", "total is carried", "use a value"),),
)
REFUSED = FaultResult("twice", "twice", "refused", message="MismatchError: it does not fit\nsecond line")


def report(*faults):
    return DrillReport(
        ("python", "<train>.py"),
        overall(faults),
        faults,
        30,
        "all 30 steps",
        12.0,
        1.8e9,
        losses=((1.0, 2.0), (7.0, 1.0)),
    )


@pytest.mark.parametrize(
    ("faults", "verdict", "said"),
    [
        ((CLEAN, DRAIN), "exact", "exact: "),
        ((CLEAN, DRAIN, LEFT_OUT), "exact", "exact: "),
        ((CLEAN, DRAIN, DIFFERENT), "different", "different: "),
        ((CLEAN, DRAIN, REFUSED), "different", "different: "),
        ((CLEAN,), "unchecked", "unchecked: no fault was run"),
        ((CLEAN, LEFT_OUT), "unchecked", "unchecked: no fault was run"),
        ((UNEQUAL, LEFT_OUT), "different", "different: two undisturbed runs differ"),
        ((), "unchecked", "unchecked: no fault was run"),
    ],
    ids=["exact", "one-not-run", "different", "refused", "nothing-struck", "all-not-run", "unequal", "none"],
)
def test_exact_is_said_only_if_something_was_struck_and_all_that_ran_is_exact(faults, verdict, said):
    assert overall(faults) == verdict
    assert closing_line(report(*faults)).startswith(said)


def test_a_drill_that_ran_no_fault_in_its_time_says_what_to_do():
    unfit = dataclasses.replace(LEFT_OUT, lacks_budget=True)
    assert closing_line(report(CLEAN, unfit)).endswith("nothing is known; give a larger --budget")
    assert "budget" not in closing_line(report(CLEAN, LEFT_OUT))


def test_the_closing_line_counts_what_was_run():
    assert closing_line(report(CLEAN, DRAIN, LEFT_OUT)) == (
        "exact: the only fault that was run, over 30 steps, 6 checkpoints, their samples and 30 logged "
        "numbers"
    )
    assert "1 of 2 faults" in closing_line(report(CLEAN, DRAIN, DIFFERENT))


def test_the_closing_line_counts_what_was_compared_of_each_run():
    fewer = dataclasses.replace(DRAIN, compared=Compared(30, 20, 0, 2))
    assert closing_line(report(CLEAN, fewer)).endswith("over 30 steps, 2 checkpoints and 20 logged numbers")


def test_the_closing_line_counts_what_did_not_fit_the_budget():
    unfit = dataclasses.replace(LEFT_OUT, lacks_budget=True)
    found = report(CLEAN, DRAIN, LEFT_OUT, unfit, dataclasses.replace(unfit, name="kill"))
    assert (found.struck, found.unfit) == (1, 2)
    assert closing_line(found).startswith("exact (1 of 3 faults run): over 30 steps")
    assert closing_line(found).endswith("give a larger --budget")


def test_the_table_has_a_row_for_each_fault():
    assert table_rows(report(CLEAN, DRAIN))[1] == ("drain", "exact", "0", "2.5 s")


def test_a_difference_is_shown_with_step_tensor_and_cause():
    text = "\n".join(explanations(report(CLEAN, DIFFERENT)))
    assert "first: step 7: loss 1 became 2" in text
    assert "state: step 10: model.w: [0]: 1 became 2" in text
    assert "likely variable carried between batches: train.py:12: total is carried" in text
    assert "use a value" in text


def test_what_was_refused_or_not_run_is_shown_with_the_reason():
    text = "\n".join(explanations(report(CLEAN, REFUSED, LEFT_OUT)))
    assert "MismatchError: it does not fit" in text
    assert "not run: epoch's end: no epoch ended" in text


def test_the_page_escapes_what_it_shows_and_marks_the_first_difference():
    text = page(report(CLEAN, DIFFERENT))
    assert "&lt;train&gt;.py" in text
    assert "<train>" not in text
    assert text.count("<polyline") == 1
    assert "step 7: loss 1 became 2</title>" in text
    assert "http" not in text.replace("http-equiv", "")


def test_the_report_as_json_holds_differences_and_causes():
    plain = json.loads(encode_report(report(CLEAN, DIFFERENT)))
    assert plain["format"] == "trainerd.drill/1"
    assert plain["faults"][1]["compared"]["differences"][1]["where"] == "model.w"
    assert plain["faults"][1]["causes"][0]["where"] == "train.py:12"
