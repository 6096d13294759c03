"""The verdict on a resume: which word follows from what was compared, and what is said about it."""

import dataclasses
import json

import pytest

from trainerd.contract.resume_record import ResumeRecord, judge, read_resume, summary, write_resume
from trainerd.contract.verdict import Reason
from trainerd.errors import CorruptError

BASE = ResumeRecord(attempt=2, checkpoint="step-000000003", step=3, is_over=True)
UNTRACKED = Reason("untracked-optimizer", "train.py:3", "it is not tracked", "track it")
TORCH = Reason("changed-libraries", "libraries.torch", "libraries.torch: 1 → 2")
FALLBACK = Reason("fallback", "step-000000006", "it is damaged")
BATCH = Reason("different-batch", "epoch 0, batch 3", "other contents")
COMPARED = {"lost": 2, "run_again": 2, "compared": 2}
DRAINED = {"is_read_back": True, "is_witnessed": True}


def judged(**fields):
    record = dataclasses.replace(BASE, **fields)
    return dataclasses.replace(record, verdict=judge(record))


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "unchecked"),
        ({"lost": 2, "run_again": 2}, "unchecked"),
        ({"is_read_back": True}, "unchecked"),
        ({"is_witnessed": True}, "unchecked"),
        (DRAINED, "exact"),
        ({"lost": 2, "run_again": 1, "compared": 1}, "exact"),
        ({"states": 1}, "exact"),
        (COMPARED | {"reasons": (FALLBACK,)}, "exact"),
        ({"reasons": (FALLBACK,)}, "unchecked"),
        ({"reasons": (TORCH,)}, "suspect"),
        (DRAINED | {"reasons": (TORCH,)}, "suspect"),
        ({"lost": 2, "run_again": 1, "compared": 1, "reasons": (TORCH,)}, "suspect"),
        (COMPARED | {"reasons": (TORCH,)}, "exact"),
        ({"states": 1, "reasons": (TORCH,)}, "exact"),
        (COMPARED | {"reasons": (UNTRACKED,)}, "suspect"),
        ({"states": 1, "reasons": (UNTRACKED,)}, "suspect"),
        (COMPARED | {"differing": 1, "reasons": (UNTRACKED,)}, "different"),
        (DRAINED | {"reasons": (BATCH,)}, "different"),
        (COMPARED | {"first_difference": "step 4: x"}, "different"),
    ],
)
def test_the_word_follows_from_what_was_compared_and_from_the_causes(fields, word):
    assert judged(**fields).verdict == word


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "unchecked: no step is run again"),
        (
            {"reasons": (Reason("no-witness", "x", "no digest was left"),)},
            "unchecked: no step is run again: no digest was left",
        ),
        ({"differing_before": 2}, "unchecked: no step is run again; 2 steps differed in earlier resumes"),
        ({"lost": 9, "is_over": False}, "unchecked: 9 steps on record, none yet run again"),
        ({"lost": 1}, "unchecked: 1 step on record, none run again"),
        (
            {"lost": 2, "run_again": 1, "reasons": (Reason("no-values", "step 4", "nothing was logged"),)},
            "unchecked: 1 step run again, none compared in both samples and values: nothing was logged",
        ),
        (
            {"lost": 1, "run_again": 1, "compared": 1},
            "exact: 1 step run again, equal in samples and values",
        ),
        (
            {"lost": 9, "run_again": 5, "compared": 4},
            "exact: 4 of 9 steps on record run again and compared, equal in samples and values",
        ),
        (DRAINED, "exact: the restored state and the contents of the next batch are equal"),
        ({"states": 1}, "exact: the whole state equals that of a checkpoint of an earlier run"),
        (
            COMPARED | {"reasons": (TORCH, Reason("untracked-optimizer", "a.py:3", "x"))},
            "suspect: a.py:3: x (and 1 more); 2 of 2 steps on record compared, equal in samples and values",
        ),
        (
            {
                "lost": 9,
                "run_again": 5,
                "compared": 4,
                "reasons": (Reason("untracked-optimizer", "a.py:3", "x"),),
            },
            "suspect: a.py:3: x; 4 of 9 steps on record compared, equal in samples and values",
        ),
        (
            {
                "lost": 9,
                "run_again": 4,
                "differing": 1,
                "first_difference": "step 7: x",
                "likely_cause": "y",
            },
            "different: 1 of 4 steps run again; step 7: x; likely y",
        ),
    ],
)
def test_the_summary_is_one_line_that_begins_with_the_word(fields, expected):
    assert summary(judged(**fields)) == expected


def test_a_record_comes_back_equal_and_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "resume.json"
    assert read_resume(path) is None
    record = judged(changes=("libraries.torch: 1 → 2",), reasons=(TORCH, UNTRACKED))
    write_resume(path, record)
    assert read_resume(path) == record
    assert json.loads(path.read_bytes())["reasons"][1] == {
        "kind": "untracked-optimizer",
        "where": "train.py:3",
        "detail": "it is not tracked",
        "hint": "track it",
    }
    for damage in ("{", "[" * 100_000, '{"format": "trainerd.resume/1", "attempt": "x"}', " " * (2 << 20)):
        path.write_text(damage)
        with pytest.raises(CorruptError):
            read_resume(path)


@pytest.mark.parametrize(("differing", "word"), [(0, "unchecked"), (1, "different")])
def test_a_record_of_an_older_trainerd_is_read_and_never_called_exact(tmp_path, differing, word):
    path = tmp_path / "resume.json"
    old = {
        "format": "trainerd.resume/1",
        "attempt": 2,
        "checkpoint": "step-000000003",
        "step": 3,
        "lost": 2,
        "compared": 2,
        "differing": differing,
        "first_difference": None,
        "is_over": True,
        "changes": [],
    }
    path.write_text(json.dumps(old))
    found = read_resume(path)
    assert (found.verdict, found.compared, found.run_again) == (word, 0, 2)
    assert summary(found).startswith(word)
