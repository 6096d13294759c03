"""Measurements are on the pages that say how they were made, and not in instructions, where they go stale.

Looked for are units and comparisons that only a measurement has. Limits of the program are in seconds,
minutes and bytes, and are allowed everywhere.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.words.prose import CODE

ROOT = Path(__file__).parents[3]
MEASURED = {
    "docs/performance.md",
    "docs/chaos.md",
    "docs/cuda.md",  # which tests ran on which device
    "docs/memory-tier.md",  # what a copy costs
    "docs/ranks.md",  # what the agreement costs
}
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    if path.relative_to(ROOT).as_posix() not in MEASURED
)
FIGURE = re.compile(
    r"\d (?:ms|µs|ns)\b|\d [KMGT]i?B/s\b|\d (?:times|x) (?:faster|slower|as fast)|\d % (?:faster|slower)"
)


def figures(text: str) -> list[str]:
    prose = CODE.sub("", text)
    return [found[0] for found in FIGURE.finditer(prose)]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_measurements(page: str) -> None:
    assert figures((ROOT / page).read_text("utf-8")) == []


def test_measurements_are_found_and_limits_are_not() -> None:
    assert figures("A save took 213 ms, 3 times faster, at 1.8 GB/s: 12 % slower.") == [
        "3 ms",
        "3 times faster",
        "8 GB/s",
        "2 % slower",
    ]
    assert figures("A limit of 30 s, 64 MiB, and 1 % of the time; `250 ms`.\n\n```\n3 ms\n```\n") == []
    assert any(figures((ROOT / page).read_text("utf-8")) for page in MEASURED)
