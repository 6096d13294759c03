"""The word linter finds what it names, where it stands, and lets no file get worse."""

from __future__ import annotations

import re

import pytest

from tests.words.lint import (
    ROOT,
    beyond,
    counts_of,
    findings_in,
    linted_files,
    lowered,
    read_baseline,
)
from tests.words.rules import RULES, WORTH_PARSING


def found(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return [(finding.line, finding.rule.name) for finding in findings_in(path, tmp_path)]


def test_no_page_has_more_of_a_word_than_the_baseline_allows():
    """The modules too are checked by `make check`; parsing them all takes seconds."""
    pages = [path for path in linted_files() if path.suffix == ".md"]
    assert len(pages) > 30
    findings = [finding for page in pages for finding in findings_in(page)]
    assert [str(finding) for finding in beyond(findings, read_baseline())] == []


def test_make_check_runs_the_linter():
    recipe = re.search(r"^check: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert "\t$(BIN)/python -m tests.words\n" in recipe


def test_the_baseline_names_files_and_rules_that_exist():
    rules = {rule.name for rule in RULES}
    for path, counts in read_baseline().items():
        assert (ROOT / path).is_file(), path
        assert counts, path
        assert set(counts) <= rules, path


def test_a_finding_names_file_line_word_and_what_to_say(tmp_path):
    (tmp_path / "page.md").write_text("One line.\nIt begins anew.\n")
    [finding] = findings_in(tmp_path / "page.md", tmp_path)
    assert str(finding) == "page.md:2: anew: say instead: again, from the start"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Whoever reads it", "whoever"),
        ("a run that nobody disturbed", "nobody"),
        ("No one asked", "nobody"),
        ("as if someone looked", "somebody"),
        ("open to everybody", "anybody"),
        ("asked by whomever", "whoever"),
        ("skipped for want\nof a device", "for want of"),
        ("it were none of ours, it is none\n  of ours", "is none of"),
        ("the one waits for the other", "the one … the other"),
        ("once it is mended", "mended"),
        ("The rank does not hear of it", "hears of"),
    ],
)
def test_words_are_found_in_pages_in_any_case_and_across_lines(tmp_path, text, rule):
    assert {name for _, name in found(tmp_path, "page.md", text)} == {rule}


@pytest.mark.parametrize(
    "text",
    [
        "`nobody` owns it",
        "```\nnobody\n```\n",
        "the renewed, amended page",
        "as far as it was observed",
        "The one does. The other does.",
    ],
)
def test_code_and_other_words_are_no_findings(tmp_path, text):
    assert found(tmp_path, "page.md", text) == []


def test_released_versions_in_the_changelog_are_history(tmp_path):
    text = "## Unreleased\n\nfor nobody\n\n## [0.1.0] - 2026-01-01\n\nfor nobody\n"
    assert found(tmp_path, "CHANGELOG.md", text) == [(3, "nobody")]


def test_python_is_searched_in_docstrings_messages_and_comments_but_not_in_names(tmp_path):
    module = '''"""Waits anew.

Whoever asks.
"""

nobody = {"nobody": 1}  # nobody looks
# for want
# of a better
print(f"{nobody} is none " "of ours", "a"
      " b mended")
'''
    assert found(tmp_path, "module.py", module) == [
        (1, "anew"),
        (3, "whoever"),
        (6, "nobody"),
        (7, "for want of"),
        (9, "is none of"),
        (10, "mended"),
    ]


def test_docstrings_begin_with_a_noun_or_a_verb(tmp_path):
    module = '''
class Stall:
    """That it stands still.

    Attributes:
        rank: Which.
        steps: Number of the steps. That is all.
    """

    def name(self):
        """Return it. That is all."""
'''
    assert found(tmp_path, "module.py", module) == [(3, "that …"), (6, "which.")]


def test_other_files_are_searched_in_their_comments(tmp_path):
    assert found(tmp_path, "install.sh", "# anew\necho anew\n") == [(1, "anew")]


def test_more_than_the_baseline_is_told_and_less_lowers_it(tmp_path):
    (tmp_path / "page.md").write_text("anew\nanew\naloud\n")
    findings = list(findings_in(tmp_path / "page.md", tmp_path))
    assert beyond(findings, {"page.md": {"anew": 2, "aloud": 1}}) == []
    assert [finding.line for finding in beyond(findings, {"page.md": {"anew": 1, "aloud": 1}})] == [1, 2]
    assert [finding.line for finding in beyond(findings, {})] == [1, 2, 3]
    counts = counts_of(findings)
    assert counts == {"page.md": {"aloud": 1, "anew": 2}}
    assert lowered({"page.md": {"anew": 5, "mended": 1}, "gone.md": {"anew": 1}}, counts) == {
        "page.md": {"anew": 2}
    }
    assert lowered({"page.md": {"anew": 1}}, counts) == {"page.md": {"anew": 1}}


def test_every_rule_for_text_makes_a_module_worth_parsing():
    assert WORTH_PARSING.search('("for want "\n    f"of a device")')
    assert WORTH_PARSING.search('"""That it stands still."""')
    assert WORTH_PARSING.search("    rank: Which.\n")
    assert not WORTH_PARSING.search("plain = 1  # a comment\n")
