"""The entrance lists every page, anchors exist, and the messages in the FAQ are those of the program."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
FAQ = (DOCS / "faq.md").read_text("utf-8")
MESSAGES = re.findall(r"^### `(.*)`$", FAQ, re.MULTILINE)
# Two literals that follow one another are one message.
JOINT = re.compile(r'"\s*\n\s*(?:[rf]{1,2})?"')


def test_every_page_is_in_the_entrance_once_with_what_it_answers() -> None:
    rows = re.findall(
        r"^\| \[[^\]]*\]\((.*?)\) \| .*\? \|$", (DOCS / "README.md").read_text("utf-8"), re.MULTILINE
    )
    pages = {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    assert sorted(rows) == sorted([*pages, "decisions/"])


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_anchor_that_a_page_links_to_is_a_heading() -> None:
    missing = []
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("*/README.md")]:
        for path, anchor in re.findall(
            r"\]\(([^)#\s:]*)#([^)\s]+)\)", FENCE.sub("", page.read_text("utf-8"))
        ):
            target = page.parent / path if path else page
            if target.suffix == ".md" and anchor not in anchors(target):
                missing.append(f"{page.relative_to(ROOT)}: {path}#{anchor}")
    assert missing == []


@cache
def program() -> str:
    paths = sorted((ROOT / "daemon" / "trainerd").rglob("*.py"))
    return "\n".join(JOINT.sub("", path.read_text("utf-8")) for path in paths)


def occurs(message: str) -> bool:
    """Return whether a string of the program has the parts of a message between its `…`, in this order."""
    parts = [re.escape(part) for part in message.split("…") if part]
    return re.search("[^\\n]{1,80}?".join(parts), program()) is not None


def test_the_faq_has_messages() -> None:
    assert len(MESSAGES) > 20
    assert not occurs("no such message of the program")
    assert not occurs("no supervisor is … damaged and goes to quarantine")


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_in_the_faq_is_one_of_the_program(message: str) -> None:
    assert occurs(message), message


def test_each_entry_of_the_faq_has_an_answer() -> None:
    entries = re.split(r"^### .*$", FAQ, flags=re.MULTILINE)[1:]
    assert all(len(re.sub(r"^## .*$", "", entry, flags=re.MULTILINE).split()) >= 8 for entry in entries)
