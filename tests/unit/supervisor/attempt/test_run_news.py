"""What ranks find is logged once."""

from __future__ import annotations

import json

import pytest

from trainerd.checkpoint.aside import AsideFolder
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import ResumeRecord, write_resume
from trainerd.contract.verdict import Reason
from trainerd.supervisor.attempt.run_news import findings, look_for_findings, note_what_is_aside
from trainerd.supervisor.log.catalogue import CATALOGUE

FALLBACK = Reason("fallback", "step-000000020", "it is damaged: bit flip", "check the disk")
RECORD = ResumeRecord(
    2,
    "step-000000010",
    10,
    verdict="suspect",
    lost=7,
    reasons=(FALLBACK, Reason("another-run", "x", "copied")),
)


@pytest.fixture
def run(tmp_path):
    run = RunPaths(tmp_path / "mnist")
    run.attempt(2).root.mkdir(parents=True)
    run.checkpoints.mkdir()
    return run


def damage(run: RunPaths, name: str) -> None:
    folder = run.checkpoints / name
    folder.mkdir()
    AsideFolder(run.quarantine).take(folder, reason="bit flip", now_s=5.0)


def names(found) -> list[str]:
    return [each.event for each in found]


def test_a_resume_makes_one_event_each_of_fallback_lost_steps_and_verdict():
    found = findings(2, RECORD, ())
    assert names(found) == ["resume.fallback", "resume.lost-steps", "resume.inexact"]
    assert found[1].fields == {"lost_steps": 7, "checkpoint": "step-000000010", "step": 10}
    assert found[2].fields["verdict"] == "suspect"
    for each in found:
        assert {"job", "attempt", *each.fields} <= set(CATALOGUE[each.event].fields)


@pytest.mark.parametrize(
    ("verdict", "event", "level"),
    [
        ("exact", "resume.verdict", "info"),
        ("unchecked", "resume.verdict", "info"),
        ("suspect", "resume.inexact", "warning"),
        ("different", "resume.inexact", "warning"),
    ],
)
def test_a_verdict_that_is_not_exact_is_a_warning(verdict, event, level):
    record = ResumeRecord(2, "step-000000010", 10, verdict=verdict, first_difference="step 11: loss")
    (found,) = findings(2, record, ())
    assert (found.event, CATALOGUE[event].level) == (event, level)


def test_the_resume_of_an_earlier_attempt_is_no_news():
    assert findings(3, RECORD, ()) == []


def test_each_is_told_once_and_a_verdict_again_when_it_changes(run):
    damage(run, "step-000000020")
    write_resume(run.resume, RECORD)
    found, told = look_for_findings(run, 2, None)
    assert names(found) == [
        "checkpoint.quarantined",
        "resume.fallback",
        "resume.lost-steps",
        "resume.inexact",
    ]
    assert found[0].fields == {"checkpoint": "step-000000020", "reason": "bit flip"}
    found, told = look_for_findings(run, 2, told)
    assert found == []
    write_resume(
        run.resume, ResumeRecord(2, "step-000000010", 10, verdict="different", lost=7, reasons=(FALLBACK,))
    )
    found, _ = look_for_findings(run, 2, told)
    assert [(each.event, each.fields["verdict"]) for each in found] == [("resume.inexact", "different")]


def test_the_next_supervisor_tells_only_what_the_one_before_has_not(run):
    damage(run, "step-000000020")
    _, told = look_for_findings(run, 2, None)
    look_for_findings(run, 2, told)
    damage(run, "step-000000010")
    found, _ = look_for_findings(run, 2, None)
    assert [each.fields["checkpoint"] for each in found] == ["step-000000010"]


def test_what_was_aside_before_an_attempt_is_no_finding_of_it(run):
    note_what_is_aside(run, 1)
    assert not run.attempt(1).root.exists()
    damage(run, "step-000000020")
    note_what_is_aside(run, 2)
    assert look_for_findings(run, 2, None)[0] == []


@pytest.mark.parametrize(
    "text", ["", "{}", "[1, null]", "[" * 100_000, "\x00"], ids=["empty", "map", "odd", "deep", "nul"]
)
def test_a_damaged_record_of_what_was_told_tells_again(run, text):
    run.attempt(2).told.write_text(text)
    damage(run, "step-000000020")
    found, _ = look_for_findings(run, 2, None)
    assert names(found) == ["checkpoint.quarantined"]


def test_a_damaged_resume_record_is_left_to_others(run):
    run.resume.write_text(json.dumps({"format": "odd"}))
    assert look_for_findings(run, 2, None)[0] == []
