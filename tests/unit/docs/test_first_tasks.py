"""Ten tasks of a newcomer: each answer is at most two links from the README, in a section that names it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# The task, the pages from the README on, and the heading of the section with the answer.
TASKS = (
    ("install into an existing environment", ("README.md",), "Install"),
    (
        "install into an existing environment",
        ("README.md", "docs/faq.md"),
        "How do I install trainerd into an existing environment?",
    ),
    ("convert a script", ("README.md", "docs/adopt.md"), "Adopting a script"),
    ("convert a script", ("README.md", "docs/tutorial.md"), "1. Convert it"),
    (
        "convert a script by hand",
        ("README.md", "docs/README.md", "docs/migrate.md"),
        "Migrating a plain script by hand",
    ),
    (
        "find out why a job was parked",
        ("README.md", "docs/faq.md"),
        "How do I find out why a job was parked?",
    ),
    ("start over", ("README.md", "docs/faq.md"), "How do I start over?"),
    (
        "resume from an older checkpoint",
        ("README.md", "docs/faq.md"),
        "How do I resume from an older checkpoint?",
    ),
    ("run on a GPU", ("README.md", "docs/gpu.md"), "Training on a GPU"),
    (
        "add a metric to keep by",
        ("README.md", "docs/faq.md"),
        "How do I keep the checkpoints with the best metric?",
    ),
    ("watch from a phone", ("README.md", "docs/watch.md"), "From a phone or another machine"),
    ("be told when it ends", ("README.md", "docs/notices.md"), "Hooks"),
    (
        "write a second reader of the format",
        ("README.md", "docs/README.md", "docs/formats.md"),
        "Write a second reader",
    ),
)


def headings(page: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)


def links(page: str) -> set[str]:
    found = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text("utf-8"))
    places = [((ROOT / page).parent / target).resolve() for target in found]
    return {path.relative_to(ROOT).as_posix() for path in places if path.is_relative_to(ROOT)}


@pytest.mark.parametrize(("task", "pages", "heading"), TASKS, ids=[f"{task[0]}: {task[2]}" for task in TASKS])
def test_the_answer_is_found(task: str, pages: tuple[str, ...], heading: str) -> None:
    assert len(pages) <= 3, task
    for page, following in itertools.pairwise(pages):
        assert following in links(page), f"{page} does not lead to {following}"
    assert heading in headings(pages[-1])


@pytest.mark.parametrize("task", sorted({task for task, _, _ in TASKS}))
def test_the_entrance_by_need_leads_there_too(task: str) -> None:
    """For readers who begin at docs/README.md, or at the site."""
    pages = {pages[-1] for name, pages, _ in TASKS if name == task} - {"README.md"}
    assert pages <= links("docs/README.md")
