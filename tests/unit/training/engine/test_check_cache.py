"""Findings of a script are kept over processes, and only those of the same script."""

from __future__ import annotations

import json
import os

import pytest

import trainerd.analysis
from trainerd.analysis.check_script import check_source
from trainerd.training.engine import check_cache
from trainerd.training.engine.check_cache import ENTRIES_MAX, findings_of

WRONG = """\
import trainerd
total = 0.0
with trainerd.session() as session:
    session.track(model=model)
    for epoch in session.epochs(2):
        for x in session.batches(loader):
            total = total * 0.9 + x
            if total > 3:
                break
"""


@pytest.fixture
def analysed(monkeypatch):
    """Return the sources that were analysed."""
    seen = []

    def counted(source, sessions=()):
        seen.append(source)
        return check_source(source, sessions)

    monkeypatch.setattr(check_cache, "check_source", counted)
    return seen


def environ(folder):
    return {"XDG_CACHE_HOME": str(folder)}


def test_a_script_is_analysed_once_and_found_the_same_again(analysed, tmp_path):
    first = findings_of(WRONG, environ(tmp_path))
    assert [each.rule for each in first] == ["carried-variable"]
    assert findings_of(WRONG, environ(tmp_path)) == first == check_source(WRONG)
    assert len(analysed) == 1


def test_another_script_and_another_analysis_are_analysed_again(analysed, tmp_path, monkeypatch):
    findings_of(WRONG, environ(tmp_path))
    assert findings_of(WRONG.replace("0.9", "0.8"), environ(tmp_path)) != ()
    monkeypatch.setattr(check_cache, "_analysis", lambda: "another")
    findings_of(WRONG, environ(tmp_path))
    assert len(analysed) == 3


@pytest.fixture
def analysis_in(tmp_path, monkeypatch):
    """Return the folder in which the analysis is taken to lie."""
    folder = tmp_path / "analysis"
    folder.mkdir()
    monkeypatch.setattr(trainerd.analysis, "__file__", str(folder / "__init__.py"))
    check_cache._analysis.cache_clear()
    yield folder
    check_cache._analysis.cache_clear()


def test_the_content_of_the_analysis_counts_and_not_the_time_of_its_files(analysed, tmp_path, analysis_in):
    for content in ("a = 1", "a = 2", "a = 1"):
        file = analysis_in / "rules.py"
        file.write_text(content)
        os.utime(file, (1, 1))
        check_cache._analysis.cache_clear()
        findings_of(WRONG, environ(tmp_path))
    assert len(analysed) == 2


def test_an_analysis_that_is_not_in_files_finds_the_same_and_keeps_nothing(analysed, tmp_path, analysis_in):
    for _ in range(2):
        assert findings_of(WRONG, environ(tmp_path))
    analysis_in.rmdir()
    assert findings_of(WRONG, environ(tmp_path))
    assert len(analysed) == 3
    assert not (tmp_path / "trainerd").exists()


@pytest.mark.parametrize(
    "content",
    ["", "{", "null", "3", '[{"line": 1}]', json.dumps([dict.fromkeys(("line", "column", "rule"), 1)]),
     json.dumps([{"line": "1", "column": 1, "rule": "", "name": "", "why": "", "instead": ""}])],
    ids=["empty", "torn", "null", "number", "fields-missing", "others-missing", "wrong-type"],
)  # fmt: skip
def test_what_is_no_list_of_findings_is_analysed_again(analysed, tmp_path, content):
    expected = findings_of(WRONG, environ(tmp_path))
    (file,) = (tmp_path / "trainerd" / "check").glob("*.json")
    file.write_text(content)
    assert findings_of(WRONG, environ(tmp_path)) == expected
    assert len(analysed) == 2


def test_where_nothing_can_be_kept_a_script_is_analysed_each_time(analysed, tmp_path):
    (tmp_path / "file").write_text("")
    for known in (environ(tmp_path / "file"), {}, {"HOME": "relative"}):
        assert findings_of(WRONG, known)
    assert len(analysed) == 3


def test_not_more_than_some_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(check_cache, "check_source", lambda source, sessions: ())
    unfinished = tmp_path / "trainerd" / "check" / ".0.json.1"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_text("")
    for number in range(ENTRIES_MAX):
        findings_of(str(number), environ(tmp_path))
    assert len(list((tmp_path / "trainerd" / "check").iterdir())) == 1
