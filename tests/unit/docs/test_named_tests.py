"""The tests that docs/integrations.md names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NAMED = sorted(
    set(
        re.findall(
            r"`(test_\w+\.py)(?:::(test_\w+))?`", (ROOT / "docs" / "integrations.md").read_text("utf-8")
        )
    )
)


def test_the_page_names_tests() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[f"{file}-{name or 'all'}" for file, name in NAMED])
def test_a_named_test_exists(file: str, name: str) -> None:
    [path] = (ROOT / "tests").rglob(file)
    assert not name or re.search(rf"^def {name}\(", path.read_text("utf-8"), re.MULTILINE), f"{path}: {name}"
