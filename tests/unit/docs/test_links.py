"""Every relative link in the documentation leads somewhere; the folders in CONTRIBUTING.md exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "jobs/**/*.md", "chaos/**/*.md", "systemd/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page: str) -> None:
    path = REPOSITORY / page
    links = [link for link in LINK.findall(FENCE.sub("", path.read_text())) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_tests_that_the_page_on_security_names_are_there() -> None:
    page = (REPOSITORY / "docs" / "security.md").read_text()
    named = set(re.findall(r"`((?:unit|integration|contract)/[\w/]*(?:\.py)?)`", page))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (REPOSITORY / "tests" / name).exists()] == []


def test_the_tree_of_folders_is_there() -> None:
    page = (REPOSITORY / "CONTRIBUTING.md").read_text()
    tree = re.search(r"## Where things are\n\n```\n(.*?)```", page, re.DOTALL)[1]
    top = ""
    for line in tree.splitlines():
        name = re.search(r"[\w./]+/", line)[0]
        if line[0].isalpha():
            top = name
        assert (REPOSITORY / (name if line[0].isalpha() else top + name)).is_dir(), line


def test_decisions_are_numbered_without_gaps_and_dated() -> None:
    pages = sorted((REPOSITORY / "docs" / "decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert re.search(r"^\d{4}-\d\d-\d\d · ", page.read_text(), re.MULTILINE), page
