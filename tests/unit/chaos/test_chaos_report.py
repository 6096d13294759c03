"""The page that chaos ends with."""

import re

import pytest

from chaos.report import write_report
from chaos.table import as_text, rows_of
from tests.support.chaos_results import results_with_one_restart


@pytest.fixture
def page(tmp_path):
    results, folders = results_with_one_restart(tmp_path)
    path = write_report(tmp_path, results, title="a <b> title", summary="figures", folders=folders)
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_outside(page):
    assert not re.search(r"(?:src|href)\s*=|https?:|url\(|@import|<script", page)


def test_both_curves_are_in_one_drawing_with_the_restart_marked(page):
    (drawing,) = re.findall(r'<svg viewBox="0 0 760.*?</svg>', page, re.DOTALL)
    assert drawing.count('class="undisturbed"') == drawing.count('class="disturbed"') == 1
    assert "attempt 1: killed, resumed at step 2" in drawing
    assert drawing.count('class="lost"') == 1


def test_what_users_named_is_escaped(page):
    assert "a &lt;b&gt; title" in page


def test_a_violation_opens_its_run_and_is_said_first(tmp_path):
    results, folders = results_with_one_restart(tmp_path)
    results["runs"][0]["checks"][0]["is_held"] = False
    text = write_report(tmp_path, results, title="t", summary="s", folders=folders).read_text()
    assert "1 of 1 runs broke an invariant" in text
    assert '<span class="bad">violated</span>' in text


def test_the_table_says_fault_outcome_lost_steps_and_recovery(tmp_path):
    results, _ = results_with_one_restart(tmp_path)
    (row,) = rows_of(results["runs"])
    assert row.cells() == ("rank-sigkill", "1", "killed", "1 (1)", "2.5 (2.5)")
    assert "| rank-sigkill | 1      | killed  | 1 (1)      | 2.5 (2.5)  |" in as_text([row])
